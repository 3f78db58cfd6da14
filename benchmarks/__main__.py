"""Runs the benchmarks and prints each ratio with its target: ``python -m benchmarks [NAME ...]``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

NAMES = sorted(
    module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if not module.name.startswith("_")
)


def main(wanted: list[str]) -> int:
    """Exit code 1 when a target is missed."""
    missed = 0
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    print(f"{'benchmark':<64} {'measured':>10} {'target':>12}")
    for name in wanted or NAMES:
        for result in importlib.import_module(f"benchmarks.{name}").run():
            bound = f"at most {result.target:g}" if result.at_most else f"{result.target:g}x"
            value = f"{result.ratio:.2f}" if result.at_most else f"{result.ratio:.{1 if result.ratio > 2 else 2}f}x"
            missed += not result.reached
            verdict = "" if result.reached else "  missed"
            print(
                f"{name}: {result.name:<{62 - len(name)}} {value:>10} {bound:>12}{verdict}  {result.note}", flush=True
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
