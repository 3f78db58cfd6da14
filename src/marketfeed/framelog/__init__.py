"""Raw frames on disk: what each connection received, as it was received.

``FrameLog`` writes while a feed runs, ``read_frames`` and ``CaptureFile`` read. How a file looks:
``marketfeed.framelog.format``. Playing frames again: ``marketfeed.capture``.
"""

from __future__ import annotations

from marketfeed.framelog.files import SUFFIX
from marketfeed.framelog.format import CapturedFrame, FileHeader, Turn
from marketfeed.framelog.log import CaptureCounts, FrameLog, told_settings
from marketfeed.framelog.reader import CaptureError, CaptureFile, Damage, read_frames

__all__ = [
    "SUFFIX",
    "CaptureCounts",
    "CaptureError",
    "CaptureFile",
    "CapturedFrame",
    "Damage",
    "FileHeader",
    "FrameLog",
    "Turn",
    "read_frames",
    "told_settings",
]
