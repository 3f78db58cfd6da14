"""Faults of the sandbox: what a broker and the network do wrong, on purpose and on time.

A fault is an object with a kind and parameters (:mod:`.base`); :mod:`.lines`, :mod:`.frames`,
:mod:`.rows` and :mod:`.gates` hold the kinds, :mod:`.script` reads them from text, and
:class:`.director.Director` starts and ends them. None of it knows a vendor.
"""

from __future__ import annotations

from marketfeed.sandbox.faults.chaos import random_plan
from marketfeed.sandbox.faults.director import Director, Injected
from marketfeed.sandbox.faults.kinds import KINDS, described, make
from marketfeed.sandbox.faults.script import Planned, parse, parse_file, parse_now

__all__ = [
    "KINDS",
    "Director",
    "Injected",
    "Planned",
    "described",
    "make",
    "parse",
    "parse_file",
    "parse_now",
    "random_plan",
]
