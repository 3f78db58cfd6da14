"""JSON messages as dicts of numbers, the fast way, and the way that looks at each value.

All values of the protocol are text. One decoder reads the whole message and turns the text of the fields that
rows are made of into numbers, in compiled code; fields that no row holds are skipped.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

__all__ = ["ORDERS", "PRICES", "QUANTITIES", "UNREADABLE", "read", "read_leniently"]

_LEVELS: Final = range(1, 6)
PRICES: Final = (
    *("lp", "ap", "o", "h", "l", "c"),
    *(f"{side}p{level}" for side in "bs" for level in _LEVELS),
    *("lc", "uc"),
)
"""Fields of the float64 columns of a row, in the row's order."""
QUANTITIES: Final = ("ltq", "v", "tbq", "tsq", "oi", *(f"{side}q{level}" for side in "bs" for level in _LEVELS))
"""Fields of the int64 columns, in the row's order."""
ORDERS: Final = tuple(f"{side}o{level}" for side in "bs" for level in _LEVELS)
"""Fields of the int32 columns, in the row's order."""

_HUGE: Final = 1e300
"""The bounds keep infinity and NaN from the fast way, and what an integer column could not hold."""
_Price = Annotated[float, Meta(ge=-_HUGE, le=_HUGE)]
_Quantity = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Orders = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_TEXTS: Final = dict.fromkeys(("t", "e", "tk", "ltt"), str)
_TYPES: Final[Mapping[str, Any]] = {
    **_TEXTS,
    **dict.fromkeys(("ft", *PRICES), _Price),
    **dict.fromkeys(QUANTITIES, _Quantity),
    **dict.fromkeys(ORDERS, _Orders),
}
_typed_dict: Any = typing.TypedDict  # by its functional form, because the fields are listed above
_Message: Any = _typed_dict("_Message", _TYPES, total=False)

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading raises."""
read: Final[Callable[[bytes], dict[str, Any]]] = msgspec.json.Decoder(_Message, strict=False).decode
"""The known fields of a message: prices and the feed time as float, quantities and orders as int, the rest as text.

Raises one of :data:`UNREADABLE` if a known field is not as it should be. Does not look whether skipped text
is UTF-8: give it ASCII only.
"""
_decode: Final = msgspec.json.Decoder().decode


def read_leniently(data: bytes) -> tuple[dict[str, Any], list[str]]:
    """Like :data:`read`, for any bytes; also the fields whose value is none (``NA``, empty, absurd).

    Raises ``ValueError`` with the reason if this is no
    JSON object.
    """
    try:
        message = _decode(data)
    except UNREADABLE:
        raise ValueError("not JSON") from None
    if not isinstance(message, dict):
        raise ValueError("not an object")
    found, missing = {}, []
    for field in message.keys() & _TYPES.keys():
        value = _value(field, message[field])
        if value is None:
            missing.append(field)
        else:
            found[field] = value
    return found, missing


def _value(field: str, value: Any) -> Any:
    """The value as its field's type, or None."""
    kind = _TYPES[field]
    if kind is str:
        return value if isinstance(value, str) else None
    try:
        number = float(value)
        if kind is _Price:
            return number if math.isfinite(number) else None
        whole = value if isinstance(value, int) else int(number)
    except (TypeError, ValueError, OverflowError):
        return None
    bound = 2**31 if kind is _Orders else 2**63
    return whole if -bound <= whole < bound else None
