"""What a sink's author says about the sink, and the means that the checks share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.contract import Sink
from marketfeed.testing.driving import CAN_KILL, Driver
from marketfeed.testing.reading import compare
from marketfeed.testing.samples import JOURNAL, sample_ticks

__all__ = ["SinkCase", "needs"]

Batch = TickBatch | CandleBatch
Check = TypeVar("Check", bound=Callable[..., None])
_MARK: Final = "_marketfeed_needs"


def needs(*abilities: str) -> Callable[[Check], Check]:
    """A check that only makes sense for sinks with these abilities; for others it is not collected.

    An ability is an attribute of the case that is true, ``candles`` (the sink accepts them), ``kill`` (this
    system can) or, with ``not_`` in front, the contrary.
    """

    def mark(check: Check) -> Check:
        setattr(check, _MARK, abilities)
        return check

    return mark


class SinkCase:
    """The declarations and hooks of :class:`marketfeed.testing.SinkContract`. A subclass sets :attr:`sink`,
    :attr:`options` and :meth:`read`, and then whatever else its sink can do."""

    sink: ClassVar[type[Sink]]
    """The class under test"""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options that make a working sink, as its TOML table would have them; ``{folder}`` in a text is replaced"""
    name: ClassVar[str] = ""
    """What the plugin calls it; then it must also be found by that name, as an installed plugin"""
    schema: ClassVar[str | None] = "tick"
    """Name of the JSON schema of what it publishes (``tick``: the whole document is compared); None: its own form"""
    envelope: ClassVar[frozenset[str]] = frozenset()
    """Keys which :meth:`read` adds beside the published document, such as message headers"""
    stores_position: ClassVar[bool] = False
    """It implements ``position``: each row exactly once"""
    survives_kill: ClassVar[bool] = True
    """What was flushed is there when the process is killed (not so in memory)"""
    can_fail: ClassVar[bool] = False
    """:meth:`break_server` and :meth:`mend_server` are there"""
    can_be_slow: ClassVar[bool] = False
    """:meth:`slow_server` is there"""
    can_refuse: ClassVar[bool] = False
    """:meth:`refused_ticks` is there"""
    can_be_hopeless: ClassVar[bool] = False
    """:meth:`make_hopeless` is there"""
    documentation: ClassVar[str | Path] = ""
    """The text for users, or its file: every option and metric stands in it, in backquotes"""
    patience_s: ClassVar[float] = 20.0
    """How long any call may take, and a delivery after an outage"""
    large_rows: ClassVar[int] = 10_000
    """Rows in the very large batch"""

    _left_out: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not hasattr(cls, "sink"):
            return
        left_out = set()
        for name, check in _checks(cls).items():
            if getattr(cls, name) is not check and name not in cls._left_out:
                continue  # the author's own, or switched off by the author
            needed = all(map(cls._can, getattr(check, _MARK, ())))
            setattr(cls, name, check if needed else None)
            left_out |= set() if needed else {name}
        cls._left_out = frozenset(left_out)

    @classmethod
    def _can(cls, ability: str) -> bool:
        if ability.startswith("not_"):
            return not cls._can(ability[4:])
        if ability == "kill":
            return CAN_KILL
        if ability == "candles":
            return "candles" in cls.sink.accepts
        return bool(getattr(cls, ability))

    # --- hooks --------------------------------------------------------------------------------------

    def make(self, folder: Path) -> Sink:
        """A new, unopened sink. The same folder always means the same place: file, table, topic."""
        return self.sink(**self.filled(folder))

    def read(self, folder: Path) -> list[dict[str, Any]]:
        """Every row that a consumer of that place sees, in its order: dictionaries with ``journal``, ``seq``,
        ``symbol``, ``last_price`` and the other published names. What is absent is left out, or None."""
        raise NotImplementedError(f"{type(self).__name__} must define read(folder)")

    def break_server(self, folder: Path) -> None:
        """From now on the place cannot be reached, or takes nothing; ``folder`` may not have been used yet."""
        raise NotImplementedError

    def mend_server(self, folder: Path) -> None:
        """The end of :meth:`break_server`. Also called when a check fails; harmless when nothing is broken."""
        raise NotImplementedError

    def slow_server(self, folder: Path) -> None:
        """From now on every answer takes a while, well under :attr:`patience_s`."""
        raise NotImplementedError

    def make_hopeless(self, folder: Path) -> Sink:
        """A sink with a setting which no time will mend: a wrong password, a place that can never be written."""
        raise NotImplementedError

    def refused_ticks(self, folder: Path) -> tuple[TickBatch, Sequence[int]]:
        """A batch, and the indices of those rows in it that the sink will never take: ``write`` names them in
        ``SinkError.rejected``, or ``flush`` gives them as ``SinkError.refused``."""
        raise NotImplementedError

    # --- for the checks -----------------------------------------------------------------------------

    def filled(self, folder: Path) -> dict[str, Any]:
        """:attr:`options` with the folder put in."""
        return {
            name: value.replace("{folder}", str(folder)) if isinstance(value, str) else value
            for name, value in self.options.items()
        }

    def driven(self, folder: Path) -> Driver:
        """A new sink on a thread of its own; opened and closed by ``with``."""
        return Driver(self.make(folder), self.patience_s)

    def ticks(self, *counts: int, first_row: int = 0, journal: str = JOURNAL) -> list[TickBatch]:
        """Batches of these lengths, one after another."""
        batches = []
        for count in counts:
            batches.append(sample_ticks(count, first_row, journal=journal))
            first_row += count
        return batches

    def expect(self, folder: Path, batches: Sequence[Batch], *, repeats: bool = False) -> None:
        """The rows of these batches are what a consumer sees: each once, in order for each instrument.

        With ``repeats`` rows may come again, as a consumer can tell: their ``seq`` is not above the last one of
        that journal and instrument.
        """
        compare(self.read(folder), batches, whole=self.schema == "tick", envelope=self.envelope, repeats=repeats)


def _checks(cls: type) -> dict[str, Any]:
    """The checks as the kit defines them."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith(f"{__package__}."):
            found |= {
                name: one for name, one in vars(base).items() if name.startswith("test_") and inspect.isfunction(one)
            }
    return found
