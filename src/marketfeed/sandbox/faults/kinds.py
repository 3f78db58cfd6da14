"""All kinds of fault by name, and making one from words or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketfeed.sandbox.faults import frames, gates, lines, rows
from marketfeed.sandbox.faults.base import Fault

__all__ = ["KINDS", "described", "make", "shown"]

_CLASSES: tuple[type[Fault], ...] = (
    lines.Drop,
    lines.Close,
    lines.HalfOpen,
    lines.Mute,
    lines.HeartbeatsOnly,
    lines.Silent,
    lines.NoPong,
    lines.Deaf,
    lines.LateMode,
    lines.Throttle,
    frames.Damage,
    frames.Repeat,
    frames.OutOfOrder,
    frames.Oversized,
    frames.Say,
    rows.BigFrames,
    rows.ZeroTime,
    rows.TimeShift,
    rows.Spike,
    rows.Crossed,
    rows.Unsorted,
    rows.VolumeBack,
    rows.Set,
    gates.Refuse,
    gates.Expire,
    gates.HttpError,
    gates.HttpSlow,
    gates.HttpShort,
    gates.Certificate,
)
KINDS: Mapping[str, type[Fault]] = {one.kind: one for one in _CLASSES}


def make(kind: str, parameters: Mapping[str, Any]) -> Fault:
    """A fault of a kind. Raises ``ValueError``, in one sentence, for a name or value that it does not know."""
    if kind not in KINDS:
        raise ValueError(f"unknown fault {kind!r}; choose from {', '.join(KINDS)}")
    known = KINDS[kind].parameters()
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        choices = ", ".join(known) or "none"
        raise ValueError(f"fault {kind!r} has no parameter {', '.join(unknown)}; choose from {choices}")
    converted: dict[str, Any] = {}
    for name, value in parameters.items():
        try:
            converted[name] = None if value is None else known[name].metadata["convert"](value)
        except (TypeError, ValueError) as error:
            why = str(error) if str(error).startswith("must") else "is not a number"
            raise ValueError(f"fault {kind!r}: {name} = {value!r} {why}") from None
    return KINDS[kind](**converted)


def shown(fault: Fault) -> dict[str, Any]:
    """The parameters that were given a value other than the default."""
    known = type(fault).parameters()
    values = {name: getattr(fault, name) for name in known}
    return {name: value for name, value in values.items() if value != known[name].default}


def described() -> list[dict[str, Any]]:
    """Every kind with its meaning and parameters, for people and for JSON."""
    return [
        {
            "kind": kind,
            "means": " ".join((one.__doc__ or "").split()),
            "parameters": {
                name: {"default": field.default, "means": field.metadata["means"]}
                for name, field in one.parameters().items()
            },
        }
        for kind, one in KINDS.items()
    ]
