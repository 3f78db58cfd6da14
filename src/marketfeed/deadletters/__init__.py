"""What could not be delivered, kept with its reason, bounded in every direction, and ready to be tried again.

:class:`DeadLetters` is what a feed puts letters into, from any thread. :class:`LetterFolder` reads
what is on the disk, in any process. Trying again is ``marketfeed.engine.redo``.
"""

from __future__ import annotations

from marketfeed.deadletters.exchange import export_line, import_letters, import_lines
from marketfeed.deadletters.folder import LetterFolder, find_folders, letters_folder
from marketfeed.deadletters.keeper import MAX_BYTES, DeadLetters
from marketfeed.deadletters.letter import KINDS, DeadLetter

__all__ = [
    "KINDS",
    "MAX_BYTES",
    "DeadLetter",
    "DeadLetters",
    "LetterFolder",
    "export_line",
    "find_folders",
    "import_letters",
    "import_lines",
    "letters_folder",
]
