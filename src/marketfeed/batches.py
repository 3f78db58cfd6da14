"""Batches: many rows of one dtype, read-only, with the names that make them readable.

A batch is what every consumer gets. Work on columns (``batch["last_price"]``) where speed counts;
loop over it (``for tick in batch``) where it does not: a :class:`Tick` is made on demand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import CANDLE, MODE_MASK, TICK, Rows
from marketfeed.enums import Interval
from marketfeed.instruments import Instrument

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Candle", "CandleBatch", "Origin", "Tick", "TickBatch"]


Item = TypeVar("Item")


@attrs.frozen
class Origin:
    """Where rows come from: names that are the same for every row of a batch."""

    instruments: Sequence[Instrument]
    """Number -> instrument; may grow while the batch lives, never changes what it holds."""
    feed: str = "main"
    vendor: str = ""
    journal: str = ""
    """The journal's published name, ``<id>.<epoch>``; with the sequence number it identifies a row for ever."""


class _Batch(Generic[Item]):
    """What tick and candle batches share: a read-only structured array and where it comes from."""

    __slots__ = ("_seq", "origin", "rows")
    DTYPE: np.dtype[np.void]

    def __init__(self, rows: Rows, origin: Origin, first_row: int | NDArray[np.int64] = 0) -> None:
        if rows.flags.writeable:
            rows = rows.view()
            rows.flags.writeable = False
        self.rows = rows
        """The structured array, shape ``(n,)``, read-only."""
        self.origin = origin
        self._seq = first_row

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Item]:
        return (self._item(index) for index in range(len(self.rows)))

    @overload
    def __getitem__(self, what: str) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, what: int) -> Item: ...
    @overload
    def __getitem__(self, what: slice | NDArray[np.bool_]) -> Self: ...
    def __getitem__(self, what: str | int | slice | NDArray[np.bool_]) -> NDArray[Any] | Item | Self:
        """A column by name, one item by number, or a smaller batch by slice or boolean array."""
        if isinstance(what, str):
            return self.rows[what]
        if isinstance(what, slice):
            if isinstance(self._seq, int) and what.step in (None, 1):
                start, _, _ = what.indices(len(self.rows))
                return type(self)(self.rows[what], self.origin, self._seq + start)
            return type(self)(self.rows[what], self.origin, self.seq[what])
        if isinstance(what, np.ndarray):
            return type(self)(self.rows[what], self.origin, self.seq[what])
        return self._item(range(len(self.rows))[what])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self)} rows of {self.origin.feed or '?'} from {self.first_row}>"

    @property
    def first_row(self) -> int:
        """Sequence number of the first row (0 for an empty batch made by hand)."""
        return self._seq if isinstance(self._seq, int) else int(self._seq[0]) if len(self._seq) else 0

    @property
    def seq(self) -> NDArray[np.int64]:
        """Sequence number of each row: its row number in the journal."""
        if isinstance(self._seq, int):
            return np.arange(self._seq, self._seq + len(self.rows), dtype=np.int64)
        return self._seq

    @property
    def journal(self) -> str:
        """Published name of the journal the rows stand in; empty if they never stood in one."""
        return self.origin.journal

    @property
    def symbols(self) -> list[str]:
        """``EXCHANGE:SYMBOL`` of each row."""
        names, codes = self._names()
        keys: list[str] = np.array(names, object)[codes].tolist()
        return keys

    def _names(self) -> tuple[list[str], NDArray[np.intp]]:
        """The different symbols, and for each row which of them it is."""
        column = self.rows["instrument"]
        numbers = np.unique(column)
        return [self.origin.instruments[number].key for number in numbers.tolist()], numbers.searchsorted(column)

    def where(self, *, symbol: str | None = None, exchange: str | None = None, token: str | None = None) -> Self:
        """The rows of matching instruments, in order.

        ``symbol`` is a trading symbol (``RELIANCE``) or a key (``NSE:RELIANCE``).
        """

        def wanted(one: Instrument) -> bool:
            return (
                (symbol is None or symbol in (one.symbol, one.key))
                and (exchange is None or one.exchange == exchange)
                and (token is None or one.token == token)
            )

        column = self.rows["instrument"]
        known = self.origin.instruments
        hits = [number for number in np.unique(column).tolist() if wanted(known[number])]
        return self[np.isin(column, hits)]

    def to_pandas(self) -> pd.DataFrame:
        """A DataFrame with a ``symbol`` column; times are India time, depth is one column a level
        (``bid_price_0`` is the best), absent values are missing. Needs ``marketfeed[pandas]``."""
        from marketfeed import _frames

        return _frames.to_pandas(self.rows, self.seq, *self._names())

    def to_arrow(self) -> pa.Table:
        """An Arrow table with a ``symbol`` column; times are UTC timestamps, depth is a list of five,
        absent values are null. Needs ``marketfeed[arrow]``."""
        from marketfeed import _frames

        return _frames.to_arrow(self.rows, self.seq, self.symbols)

    def _item(self, index: int) -> Item:
        raise NotImplementedError


class _Item:
    """One row of a batch, read when asked: attributes are the fields of the dtype."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: _Batch[Any], index: int) -> None:
        self._batch = batch
        self._index = index

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in (self._batch.DTYPE.names or ()):
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        value = self._batch.rows[name][self._index].tolist()
        return tuple(value) if isinstance(value, list) else value

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.describe.key} #{self.seq}>"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(self._batch.DTYPE.names or ())})

    @property
    def seq(self) -> int:
        """Row number in the journal."""
        first = self._batch._seq
        return first + self._index if isinstance(first, int) else int(first[self._index])

    @property
    def describe(self) -> Instrument:
        """The whole :class:`~marketfeed.instruments.Instrument`."""
        return self._batch.origin.instruments[int(self._batch.rows["instrument"][self._index])]

    @property
    def symbol(self) -> str:
        """Trading symbol, without the exchange."""
        return self.describe.symbol

    @property
    def exchange(self) -> str:
        return self.describe.exchange

    @property
    def token(self) -> str:
        """The vendor's token."""
        return self.describe.token


class Tick(_Item):
    """One tick. Units and meaning of each field: :data:`marketfeed.dtypes.TICK`."""

    __slots__ = ()
    if TYPE_CHECKING:
        exchange_ns: int
        received_ns: int
        last_trade_ns: int
        last_quantity: int
        volume: int
        buy_quantity: int
        sell_quantity: int
        open_interest: int
        oi_day_high: int
        oi_day_low: int
        bid_quantity: tuple[int, ...]
        ask_quantity: tuple[int, ...]
        last_price: float
        average_price: float
        open: float
        high: float
        low: float
        close: float
        bid_price: tuple[float, ...]
        ask_price: tuple[float, ...]
        lower_circuit: float
        upper_circuit: float
        bid_orders: tuple[int, ...]
        ask_orders: tuple[int, ...]
        instrument: int
        flags: int

    @property
    def mode(self) -> int:
        """How much the message held: a :class:`~marketfeed.enums.Mode`, 0 if unknown."""
        return self.flags & MODE_MASK


class Candle(_Item):
    """One candle. Units and meaning of each field: :data:`marketfeed.dtypes.CANDLE`."""

    __slots__ = ()
    if TYPE_CHECKING:
        start_ns: int
        volume: int
        open_interest: int
        open: float
        high: float
        low: float
        close: float
        interval: int
        instrument: int
        source: int
        flags: int


class TickBatch(_Batch[Tick]):
    """Ticks in the order in which they were accepted."""

    __slots__ = ()
    DTYPE = TICK

    def _item(self, index: int) -> Tick:
        return Tick(self, index)

    @property
    def mid_price(self) -> NDArray[np.float64]:
        """Middle of best bid and ask in rupees, shape ``(n,)``; NaN without both sides."""
        return (self._best("bid_price") + self._best("ask_price")) / 2

    @property
    def bid_ask_spread(self) -> NDArray[np.float64]:
        """Best ask minus best bid in rupees, shape ``(n,)``; NaN without both sides."""
        return self._best("ask_price") - self._best("bid_price")

    @property
    def order_imbalance(self) -> NDArray[np.float64]:
        """(bid - ask) / (bid + ask) over the quantities of all five levels, -1 to 1, shape ``(n,)``."""
        bid = self.rows["bid_quantity"].sum(axis=1).astype("f8")
        ask = self.rows["ask_quantity"].sum(axis=1).astype("f8")
        with np.errstate(invalid="ignore"):
            ratio: NDArray[np.float64] = (bid - ask) / (bid + ask)
        return ratio

    @property
    def microprice(self) -> NDArray[np.float64]:
        """Best prices weighted by the opposite side's quantity, in rupees, shape ``(n,)``."""
        bid, ask = self.rows["bid_quantity"][:, 0], self.rows["ask_quantity"][:, 0]
        with np.errstate(invalid="ignore"):
            total = self._best("bid_price") * ask + self._best("ask_price") * bid
            price: NDArray[np.float64] = total / (bid + ask)
        return price

    def _best(self, side: str) -> NDArray[np.float64]:
        column: NDArray[np.float64] = self.rows[side][:, 0]
        return np.where(column > 0, column, np.nan)  # an empty level is sent as price 0


class CandleBatch(_Batch[Candle]):
    """Candles, oldest first within an instrument."""

    __slots__ = ()
    DTYPE = CANDLE

    def _item(self, index: int) -> Candle:
        return Candle(self, index)

    @property
    def intervals(self) -> list[Interval]:
        """The interval of each row by name."""
        names = {one.seconds: one for one in Interval}
        return [names[seconds] for seconds in self.rows["interval"].tolist()]
