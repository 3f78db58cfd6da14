"""Configuration: a TOML file and the environment become frozen classes, or one error that lists every problem.

A value ``{ env = "NAME", default = ... }`` is read from the environment or from a file ``.env`` beside
the TOML (the environment wins; nothing is put into it). Paths are relative to the working directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

from marketfeed.config.build import build_config
from marketfeed.config.file import Document, read_document, read_environ
from marketfeed.config.options import options_of
from marketfeed.config.settings import (
    CALENDARS,
    CaptureConfig,
    Config,
    DeadLettersConfig,
    FeedConfig,
    JournalConfig,
    LoggingConfig,
    MetricsConfig,
    SinkConfig,
    ValidationConfig,
    VendorConfig,
)
from marketfeed.errors import ConfigError
from marketfeed.plugins import Plugins
from marketfeed.redaction import USERINFO

__all__ = [
    "CALENDARS",
    "CaptureConfig",
    "Config",
    "DeadLettersConfig",
    "FeedConfig",
    "JournalConfig",
    "LoggingConfig",
    "MetricsConfig",
    "SinkConfig",
    "ValidationConfig",
    "VendorConfig",
    "build",
    "load",
    "redacted",
    "secrets_of",
]

_HIDDEN = "***"


def load(
    path: str | Path,
    plugins: Plugins | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    placeholder: str | None = None,
) -> Config:
    """Read and check a TOML file. Raises ``ConfigError`` with every problem at once.

    ``placeholder`` is given to required vendor settings that come from the environment but are not
    set there: a sandbox needs no credentials.
    """
    path = Path(path)
    document = read_document(path)
    environ = read_environ(path.parent, os.environ if environ is None else environ)
    return _built(document, plugins, environ, path, placeholder)


def build(
    values: Mapping[str, Any],
    plugins: Plugins | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    placeholder: str | None = None,
) -> Config:
    """The same from Python values instead of a file: ``{"feeds": {"main": {"vendor": "kite", ...}}}``."""
    environ = {name: value for name, value in (os.environ if environ is None else environ).items() if value}
    return _built(Document(values), plugins, environ, None, placeholder)


def redacted(config: Config) -> dict[str, Any]:
    """The configuration as plain values that may be shown: secrets are ``***``."""
    return {
        "feeds": {name: _plain(one, skip=("name",)) for name, one in config.feeds.items()},
        "vendors": {name: {"type": one.type, **_plain(one.settings)} for name, one in config.vendors.items()},
        "sinks": {name: _sink(one) for name, one in config.sinks.items()},
        "journal": _plain(config.journal),
        "capture": _plain(config.capture),
        "dead_letters": _plain(config.dead_letters),
        "validation": _plain(config.validation),
        "metrics": _plain(config.metrics),
        "log": _plain(config.log),
    }


def secrets_of(config: Config) -> set[str]:
    """Every secret value of the configuration, to be blanked out of what is shown or kept."""
    found: set[str] = set()
    for vendor in config.vendors.values():
        fields = attrs.fields(type(vendor.settings))
        found |= _texts(getattr(vendor.settings, one.name) for one in fields if one.metadata.get("secret"))
        found |= _passwords(getattr(vendor.settings, one.name) for one in fields)
    for sink in config.sinks.values():
        known = options_of(sink.cls)
        found |= _texts(value for name, value in sink.options.items() if known[name].secret)
    return found


def _passwords(values: Iterable[Any]) -> set[str]:
    """Passwords inside URLs, such as a proxy's, as they are written and as they are meant."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, str) and "@" in value:
            with contextlib.suppress(ValueError):
                written = urlsplit(value).password or ""
                found |= {written, unquote(written)} - {""}
    return found


def _texts(values: Iterable[Any]) -> set[str]:
    found: set[str] = set()
    for value in values:
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, Mapping):
            found |= _texts(value.values())
        elif isinstance(value, list | tuple):
            found |= _texts(value)
    return found


def _built(
    document: Document,
    plugins: Plugins | None,
    environ: Mapping[str, str],
    source: Path | None,
    placeholder: str | None,
) -> Config:
    plugins = plugins or Plugins.discover(environ=environ)
    config, problems = build_config(document, plugins, environ, source, placeholder)
    if config is None:
        raise ConfigError(problems, source)
    return config


def _sink(sink: SinkConfig) -> dict[str, Any]:
    known = options_of(sink.cls)
    options = {name: _shown(value, known[name].secret) for name, value in sink.options.items()}
    return {**_plain(sink, skip=("name", "cls", "options")), **options}


def _plain(thing: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        field.name: _shown(getattr(thing, field.name), bool(field.metadata.get("secret")))
        for field in attrs.fields(type(thing))
        if field.name not in skip
    }


def _shown(value: Any, secret: bool) -> Any:
    if secret and value:
        return _HIDDEN
    if hasattr(value, "word"):  # Mode
        return value.word
    if isinstance(value, tuple | list | set | frozenset):
        return [_shown(item, False) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _shown(item, False) for key, item in value.items()}
    if attrs.has(type(value)):
        return _plain(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return USERINFO.sub(_HIDDEN, str(value))
