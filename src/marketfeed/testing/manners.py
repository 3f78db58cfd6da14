"""Checks of how a sink behaves as a plugin: options, documentation, secrets, threads, files, output."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import re
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from marketfeed import config
from marketfeed.config.options import Option, docs_of, options_of
from marketfeed.contract import Sink, Vendor, VendorSettings
from marketfeed.errors import ConfigError
from marketfeed.hookspecs import hookimpl
from marketfeed.plugins import Plugins
from marketfeed.testing.case import SinkCase, needs
from marketfeed.testing.driving import Driver, open_files

__all__ = ["OptionChecks", "TidyChecks"]

_SECRET: Final = "kit-secret-7f3a9c"
_TELLING = re.compile(r"(password|passphrase|passwd|secret|api_?key|access_?token)$")
_METRIC: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
_SETTLE_S: Final = 5.0


class _Plugin:
    """The sink under test as a plugin, beside a vendor for the feed."""

    def __init__(self, cls: type[Sink]) -> None:
        self.cls = cls

    @hookimpl
    def marketfeed_vendor(self) -> Vendor:
        return Vendor(name="sample", title="Sample", settings=VendorSettings)

    @hookimpl
    def marketfeed_sinks(self) -> Mapping[str, type[Sink]]:
        return {"sink-under-test": self.cls}


class OptionChecks(SinkCase):
    """The sink's table in the configuration, and its page in the manual."""

    def _configured(self, table: Mapping[str, Any]) -> config.SinkConfig:
        """What the configuration makes of that table. Raises ``ConfigError``."""
        feed = {"vendor": "sample", "instruments": ["NSE:RELIANCE"], "sinks": ["sink-under-test"]}
        values = {"feeds": {"main": feed}, "sinks": {"sink-under-test": dict(table)}}
        return config.build(values, Plugins.of(_Plugin(self.sink)), {}).sinks["sink-under-test"]

    def _refused(self, table: Mapping[str, Any], option: str) -> str:
        """The problem that the configuration has with that option."""
        with pytest.raises(ConfigError) as raised:
            self._configured(table)
        path = f"sinks.sink-under-test.{option}"
        told = [one for one in raised.value.problems if one.path.startswith(path) or option in one.message]
        assert told, f"no problem names {option}: {raised.value}"
        return str(told[0])

    def test_it_is_an_attrs_class_whose_fields_are_options(self) -> None:
        assert issubclass(self.sink, Sink)
        assert attrs.has(self.sink), "decorate the class with @attrs.define(slots=False)"
        assert [name for name in options_of(self.sink) if name.startswith("_")] == []
        cls: Any = self.sink
        assert cls.accepts, "accepts says which batches it takes"
        assert cls.accepts <= {"ticks", "candles"}
        assert set(cls.exclusive) <= set(options_of(cls)), "exclusive names options"

    def test_the_options_of_a_table_make_the_sink(self, tmp_path: Path) -> None:
        made = self._configured(self.filled(tmp_path)).make("main")
        assert type(made) is self.sink

    def test_an_unknown_option_is_refused(self, tmp_path: Path) -> None:
        self._refused({**self.filled(tmp_path), "no_such_option": 1}, "no_such_option")

    def test_a_missing_option_is_named(self, tmp_path: Path) -> None:
        table = self.filled(tmp_path)
        for name, option in options_of(self.sink).items():
            if option.required:
                self._refused({key: value for key, value in table.items() if key != name}, name)

    def test_an_option_of_the_wrong_kind_is_refused(self, tmp_path: Path) -> None:
        for name, option in options_of(self.sink).items():
            if not _takes_anything(option):
                self._refused({**self.filled(tmp_path), name: {"a": {"b": [None]}}}, name)

    def test_every_option_is_explained_under_its_field(self) -> None:
        told = docs_of(self.sink)
        bare = [name for name, option in options_of(self.sink).items() if not told.get(option.field.name)]
        assert bare == [], "`marketfeed init` prints the text under each field"

    def test_every_option_is_documented(self) -> None:
        text = self._documentation()
        assert [name for name in options_of(self.sink) if f"`{name}`" not in text] == []

    def test_every_metric_is_documented(self, tmp_path: Path) -> None:
        with self.driven(tmp_path) as sink:
            sink.deliver(self.ticks(5))
            names = list(sink.sink.metrics())
        text = self._documentation() if names else ""
        assert [name for name in names if f"`{name}`" not in text] == []

    def test_metrics_are_plain_numbers_at_any_moment(self, tmp_path: Path) -> None:
        made = self.make(tmp_path)
        seen = [made.metrics()]
        with Driver(made, self.patience_s) as sink:
            seen.append(made.metrics())  # on this thread: not the sink's own
            sink.write(*self.ticks(5))
            seen.append(made.metrics())
            sink.flush()
            seen.append(made.metrics())
        seen.append(made.metrics())
        for name, value in ((name, value) for one in seen for name, value in one.items()):
            assert _METRIC.fullmatch(name), f"{name!r} cannot be a metric's name"
            assert isinstance(value, int | float), f"{name} is {value!r}"
        for name in (name for name in seen[0] if name.endswith("_total")):
            counts = [one[name] for one in seen]
            assert counts == sorted(counts), f"the counter {name} went down: {counts}"

    def test_it_leaves_the_registry_of_prometheus_alone(self, tmp_path: Path) -> None:
        from prometheus_client import REGISTRY

        before = {metric.name for metric in REGISTRY.collect()}
        with self.driven(tmp_path) as sink:
            sink.deliver(self.ticks(5))
            added = {metric.name for metric in REGISTRY.collect()} - before
        assert added == set(), "two feeds in a process would be in each other's way; return numbers from metrics()"

    @needs("name")
    def test_an_installed_plugin_gives_it_by_its_name(self) -> None:
        plugins = Plugins.discover(disabled=())
        given = plugins.sinks.get(self.name)
        broken = "; ".join(map(str, plugins.broken))
        assert given is self.sink, f"{self.name!r} is {given} (broken plugins: {broken or 'none'})"

    def test_secret_options_are_marked(self) -> None:
        bare = [name for name, one in options_of(self.sink).items() if _TELLING.search(name) and not one.secret]
        assert bare == [], "declare them with marketfeed.contract.secret()"

    def test_secrets_do_not_show(self, tmp_path: Path) -> None:
        secrets = [name for name, one in options_of(self.sink).items() if one.secret]
        if not secrets:
            return
        with _heard() as heard:
            try:
                made = self._configured({**self.filled(tmp_path), **dict.fromkeys(secrets, _SECRET)}).make("main")
                heard.append(repr(made))
                with Driver(made, self.patience_s) as sink:
                    sink.write(*self.ticks(3))
                    sink.flush()
            except Exception as error:  # the wrong secret may well be refused: not by showing it
                heard += traceback.format_exception(error)
        assert _SECRET not in "\n".join(heard), "a secret shows in repr, an error, output or the log"

    def _documentation(self) -> str:
        text = self.documentation
        assert text, "set documentation to the text or the file which users read"
        return text.read_text(encoding="utf-8") if isinstance(text, Path) else text


class TidyChecks(SinkCase):
    """What is left when it is gone."""

    def test_no_thread_and_no_open_file_is_left(self, tmp_path: Path) -> None:
        self._live(tmp_path, 0)  # the first run may load libraries, which stay
        threads, files = Counter(map(repr, threading.enumerate())), Counter(open_files())
        self._live(tmp_path, 1)
        assert not _settled(lambda: Counter(map(repr, threading.enumerate())) - threads), "threads are left"
        assert not _settled(lambda: Counter(open_files()) - files), "files or sockets are left open"

    @needs("can_fail")
    def test_nothing_is_left_after_an_open_that_failed(self, tmp_path: Path) -> None:
        self._fail_to_open(tmp_path)
        threads, files = Counter(map(repr, threading.enumerate())), Counter(open_files())
        self._fail_to_open(tmp_path)
        assert not _settled(lambda: Counter(map(repr, threading.enumerate())) - threads), "threads are left"
        assert not _settled(lambda: Counter(open_files()) - files), "files or sockets are left open"

    def test_it_prints_nothing(self, tmp_path: Path) -> None:
        with _heard(logs=False) as heard:
            self._live(tmp_path, 0)
        assert "".join(heard) == "", "standard output belongs to the user; log with logging.getLogger(__name__)"

    def _live(self, folder: Path, number: int) -> None:
        with self.driven(folder) as sink:
            sink.deliver(self.ticks(10, first_row=10 * number))

    def _fail_to_open(self, folder: Path) -> None:
        driver = Driver(self.make(folder), self.patience_s)
        try:
            self.break_server(folder)
            with contextlib.suppress(Exception):
                driver.open()
            with contextlib.suppress(Exception):
                driver.close()
        finally:
            self.mend_server(folder)
            driver.__exit__(None, None, None)


def _takes_anything(option: Option) -> bool:
    return option.type is Any or "Mapping" in str(option.type) or "dict" in str(option.type) or option.type is object


def _settled(left: Any) -> Any:
    """What is still left once things had some time to go."""
    end = time.monotonic() + _SETTLE_S
    while (rest := left()) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.02)
    return rest


@contextlib.contextmanager
def _heard(*, logs: bool = True) -> Iterator[list[str]]:
    """Everything that is printed, and logged at any level."""
    heard: list[str] = []
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    handler = logging.StreamHandler(log := io.StringIO())
    root = logging.getLogger()
    level = root.level
    if logs:
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            yield heard
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        out.flush()
        heard += [out.buffer.getvalue().decode(errors="replace"), log.getvalue()]
