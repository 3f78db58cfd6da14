"""Instrument masters, fetched once a day and kept on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import msgspec

from marketfeed.clock import IST, NS, Clock
from marketfeed.contract import Http, Session, VendorSettings, is_loopback
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.plugins import VendorPlugin

__all__ = ["cached_days", "load_instruments", "master_day", "previous_instruments"]

_log = logging.getLogger(__name__)
_FORMAT: Final = 2
_PARTIAL_NS: Final = 600 * NS
_DAYS_KEPT: Final = 2
"""Today's master and the one before it, which `marketfeed instruments diff` compares."""
_NEW_MASTER: Final = timedelta(hours=8, minutes=30)
"""Brokers make the day's master in the early morning, India time; Kite's documentation advises to fetch at 08:30."""
_FIELDS: Final = tuple(field.name for field in attrs.fields(Instrument))


def load_instruments(
    plugin: VendorPlugin,
    settings: VendorSettings,
    session: Session | None,
    http: Http,
    clock: Clock,
    folder: Path | None = None,
    *,
    refresh: bool = False,
) -> InstrumentTable:
    """The instrument master of today: from ``folder`` if it is there, else (or to ``refresh`` it) from the broker.

    ``folder`` None is the user's cache folder. A broker on this machine (a sandbox) is always asked:
    its instruments are nobody else's. A table that is empty is not kept, one that says that something is missing
    for ten minutes. Raises what ``plugin.instruments`` raises; a cache that cannot be read or written costs a
    fetch and a warning, nothing more.
    """
    if is_loopback(urlsplit(settings.rest_url).hostname):
        return plugin.instruments(settings, session, http)
    folder = folder or _cache_folder()
    prefix = _prefix(plugin.info.name, settings)
    path = folder / f"{prefix}{master_day(clock.wall_ns())}.msgpack"
    now_ns = clock.wall_ns()
    table = None if refresh else _read(path, now_ns)
    if table is None:
        table = plugin.instruments(settings, session, http)
        if len(table):
            _write(path, prefix, table, now_ns)
    return table


def cached_days(plugin: VendorPlugin, settings: VendorSettings, folder: Path | None = None) -> dict[date, Path]:
    """The days whose masters are on disk, oldest first, and their files."""
    prefix = _prefix(plugin.info.name, settings)
    found: dict[date, Path] = {}
    for path in sorted((folder or _cache_folder()).glob(f"{prefix}*.msgpack")):
        try:
            found[date.fromisoformat(path.stem.removeprefix(prefix))] = path
        except ValueError:
            continue  # not one of ours
    return found


def previous_instruments(
    plugin: VendorPlugin, settings: VendorSettings, day: date, folder: Path | None = None
) -> tuple[date, InstrumentTable] | None:
    """The newest master on disk from before ``day``, with its day; None if there is none that can be read."""
    for earlier, path in reversed(cached_days(plugin, settings, folder).items()):
        table = _read(path) if earlier < day else None
        if table is not None:
            return earlier, table
    return None


def master_day(wall_ns: int) -> date:
    """The day whose master is in force at a moment (UTC nanoseconds); it begins at 08:30 India time."""
    return (datetime.fromtimestamp(wall_ns // NS, UTC).astimezone(IST) - _NEW_MASTER).date()


def _cache_folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("marketfeed") / "instruments"


def _prefix(vendor: str, settings: VendorSettings) -> str:
    """Beginning of the file names of one vendor at one address."""
    address = hashlib.sha256(settings.rest_url.encode()).hexdigest()[:8]
    return f"{vendor}-{address}-"


def _read(path: Path, now_ns: int | None = None) -> InstrumentTable | None:
    """A table that was kept; one with something missing not after ten minutes, where ``now_ns`` is given."""
    try:
        content: Any = msgspec.msgpack.decode(path.read_bytes())
        if content["format"] != _FORMAT or tuple(content["columns"]) != _FIELDS:
            return None  # written by another version
        if now_ns is not None and content["missing"] and not 0 <= now_ns - content["at_ns"] < _PARTIAL_NS:
            return None
        columns = content["columns"]
        days = {text: date.fromisoformat(text) for text in set(columns["expiry"]) if text is not None}
        columns["expiry"] = [days.get(text) for text in columns["expiry"]]
        rows = zip(*columns.values(), strict=True)
        made = [Instrument(**dict(zip(_FIELDS, row, strict=True))) for row in rows]
        return InstrumentTable(made, missing=content["missing"])
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        _log.warning("cannot read the instruments kept in %s, fetching them again: %r", path, error)
        return None


def _write(path: Path, prefix: str, table: InstrumentTable, now_ns: int) -> None:
    """Keep a table, whole or not at all, and drop all but the newest days, which begin with the same ``prefix``."""
    columns: dict[str, list[Any]] = {name: [getattr(one, name) for one in table] for name in _FIELDS}
    columns["expiry"] = [day and day.isoformat() for day in columns["expiry"]]
    whole = {"format": _FORMAT, "at_ns": now_ns, "missing": table.missing, "columns": columns}
    content = msgspec.msgpack.encode(whole)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        for old in sorted(path.parent.glob(f"{prefix}*.msgpack"))[:-_DAYS_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("cannot keep the instruments in %s: %s", path, error)
