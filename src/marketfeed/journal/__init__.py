"""The one store between parsing and everything that consumes: append-only rows, one cursor a consumer.

``Journal.create(folder)`` writes a journal on disk, ``Journal.attach(folder)`` reads one from any
process, ``Journal.memory()`` keeps one in this process. How the files look and what they promise:
the reference page "The journal".
"""

from __future__ import annotations

from marketfeed.journal.base import Journal
from marketfeed.journal.catalog import Catalog
from marketfeed.journal.cursors import Counts
from marketfeed.journal.layout import candles_folder, ticks_folder
from marketfeed.journal.reader import Reader

__all__ = ["Catalog", "Counts", "Journal", "Reader", "candles_folder", "ticks_folder"]
