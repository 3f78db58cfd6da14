"""``python -m marketfeed`` is the command ``marketfeed``."""

from __future__ import annotations

from marketfeed.cli import main

if __name__ == "__main__":
    main(prog_name="marketfeed")
