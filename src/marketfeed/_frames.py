"""Batches as DataFrames and Arrow tables. Imports pandas and pyarrow only when called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import FLAG_GROUPS, TICK, Rows
from marketfeed.errors import MarketFeedError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_HIDDEN = ("check", "spare")
_GROUP = {field: flag for flag, fields in FLAG_GROUPS.items() for field in fields}


def _columns(rows: Rows) -> Iterator[tuple[str, NDArray[Any], NDArray[np.bool_] | None]]:
    """Each field with the mask of its absent values, or None where nothing can be absent.

    Floats say it themselves (NaN), so only integers get a mask.
    """
    flags = rows["flags"]
    for name in rows.dtype.names or ():
        if name in _HIDDEN:
            continue
        column = rows[name]
        absent: NDArray[np.bool_] | None = None
        if name.endswith("_ns"):
            absent = column == 0
        elif column.dtype.kind == "i" and rows.dtype == TICK and name in _GROUP:
            absent = (flags & np.uint32(_GROUP[name])) == 0
        elif name == "open_interest":
            absent = column < 0
        yield name, column, absent


def to_pandas(rows: Rows, seq: NDArray[np.int64], names: list[str], codes: NDArray[np.intp]) -> pd.DataFrame:
    """``names[codes]`` is the symbol of each row: a few names taken many times, which pandas does fast."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MarketFeedError("to_pandas() needs pandas: pip install 'marketfeed[pandas]'") from error
    out: dict[str, Any] = {"seq": seq, "symbol": pd.Index(names).take(codes)}

    def put(name: str, column: NDArray[Any], absent: NDArray[np.bool_] | None) -> None:
        if name.endswith("_ns"):
            times = pd.Series(column.astype("M8[ns]")).mask(column == 0)
            out[name.removesuffix("_ns") + "_time"] = times.dt.tz_localize("UTC").dt.tz_convert("+05:30")
        elif absent is not None and absent.any():
            out[name] = pd.array(column, dtype="Int64")
            out[name][absent] = pd.NA
        else:
            out[name] = np.ascontiguousarray(column)

    for name, column, absent in _columns(rows):
        if column.ndim == 1:
            put(name, column, absent)
        else:
            for level in range(column.shape[1]):
                put(f"{name}_{level}", column[:, level], absent)
    return pd.DataFrame(out)


def to_arrow(rows: Rows, seq: NDArray[np.int64], symbols: list[str]) -> pa.Table:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MarketFeedError("to_arrow() needs pyarrow: pip install 'marketfeed[arrow]'") from error
    out: dict[str, Any] = {"seq": pa.array(seq), "symbol": pa.array(symbols, pa.string()).dictionary_encode()}
    for name, column, absent in _columns(rows):
        if column.ndim == 2:
            values = pa.array(np.ascontiguousarray(column).reshape(-1), from_pandas=True)
            mask = None if absent is None else pa.array(absent)
            out[name] = pa.FixedSizeListArray.from_arrays(values, column.shape[1], mask=mask)
        else:
            kind = pa.timestamp("ns", tz="UTC") if name.endswith("_ns") else None
            column = np.ascontiguousarray(column)
            array = pa.array(column, mask=absent, from_pandas=True)
            out[name.removesuffix("_ns") + "_time" if kind else name] = array.cast(kind) if kind else array
    return pa.table(out)
