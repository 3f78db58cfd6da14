"""Checks of a vendor as a plugin: hooks, description, imports, settings, secrets, documentation."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import attrs
import pytest

from marketfeed.config.options import docs_of, options_of
from marketfeed.contract import Vendor, VendorSettings
from marketfeed.enums import Interval, Mode
from marketfeed.errors import ConfigError, MarketFeedError
from marketfeed.plugins import Plugins
from marketfeed.testing.bench import settings_of
from marketfeed.testing.manners import _SECRET, _TELLING, _heard, _takes_anything
from marketfeed.testing.vendor_case import VendorCase

__all__ = ["PluginChecks", "SettingChecks"]

_HOOKS: Final = ("authenticate", "instruments", "connect", "parser", "sandbox")
_LATER: Final = (
    "requests",
    "urllib3",
    "websocket",
    "websockets",
    "aiohttp",
    "twisted",
    "autobahn",
    "kiteconnect",
    "pandas",
    "pyarrow",
    "pyotp",
    "prometheus_client",
    "structlog",
    "pytest",
)


class PluginChecks(VendorCase):
    """What the plugin says of itself."""

    def test_the_plugin_is_found_by_the_vendors_name(self) -> None:
        plugins = self.plugins()
        broken = "; ".join(map(str, plugins.broken))
        assert self.vendor in plugins.vendors, f"no vendor {self.vendor!r} (broken plugins: {broken or 'none'})"
        if self.found is None:
            assert self.vendor in Plugins.discover(disabled=()).vendors

    def test_every_hook_of_a_vendor_is_there(self) -> None:
        plugin = self.plugin
        missing = [hook for hook in _HOOKS if not plugin.offers(f"marketfeed_{hook}")]
        assert missing == []
        if plugin.info.candle_days:
            assert plugin.offers("marketfeed_fetch_candles"), "candle_days promises candles, and no hook fetches them"

    def test_the_description_is_whole(self) -> None:
        info = self.plugin.info
        assert isinstance(info, Vendor)
        assert info.name == self.vendor
        assert info.name == info.name.lower()
        assert info.title.strip()
        assert info.modes, "a vendor has at least one mode"
        assert len(set(info.modes)) == len(info.modes)
        assert all(isinstance(mode, Mode) for mode in info.modes)
        assert info.instruments_per_connection >= 1
        assert info.connections_per_account >= 1

    def test_limits_are_above_zero(self) -> None:
        info = self.plugin.info
        for limit in info.rate_limits:
            assert limit.calls >= 1, f"{limit} lets nothing through"
            assert limit.per_s > 0, f"{limit} has no length"
            prefixes = [limit.prefix] if isinstance(limit.prefix, str) else limit.prefix
            assert prefixes, f"{limit}: it is of no path"
            assert all(one.startswith("/") for one in prefixes), f"{limit}: a prefix of the path begins with a slash"
        for interval, days in info.candle_days.items():
            assert isinstance(interval, Interval)
            assert days >= 1

    def test_importing_the_plugin_imports_no_sdk(self) -> None:
        name = self._module()
        if name is None:
            pytest.skip("the plugin is an object, not a module")
        program = (
            "import sys, threading, marketfeed, marketfeed.hookspecs; before = set(sys.modules);"
            f"sys.path[:0] = {sys.path!r}; import {name}; print('imported', *sorted(set(sys.modules) - before));"
            "print('threads', threading.active_count())"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        words = next(line for line in done.stdout.splitlines() if line.startswith("imported")).split()[1:]
        heavy = {word.partition(".")[0] for word in words} & set(_LATER)
        assert heavy == set(), "import them in the functions that need them: every command of marketfeed loads plugins"
        assert done.stdout.rstrip().endswith("threads 1"), "importing it starts threads"

    def test_importing_the_plugin_prints_nothing(self) -> None:
        name = self._module()
        if name is None:
            pytest.skip("the plugin is an object, not a module")
        program = f"import sys; sys.path[:0] = {sys.path!r}; import {name}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout + done.stderr == ""

    def _module(self) -> str | None:
        """Importable name of the plugin's module."""
        settings = self.plugin.info.settings
        name = settings.__module__.partition(".")[0]
        return name if isinstance(sys.modules.get(name), ModuleType) and name.startswith("marketfeed_") else None


class SettingChecks(VendorCase):
    """The table ``[vendors.NAME]``, its secrets, and its page in the manual."""

    @property
    def _class(self) -> type[VendorSettings]:
        return self.plugin.info.settings

    def _table(self) -> dict[str, Any]:
        """Settings that are right: those of the sandbox."""
        with self.bench() as bench:
            return {**bench.box.settings(), **self.settings}

    def _refused(self, table: Mapping[str, Any], setting: str) -> None:
        with pytest.raises(ConfigError) as raised:
            settings_of(self.plugins(), self.vendor, table)
        told = [one for one in raised.value.problems if one.path.endswith(f".{setting}") or setting in one.message]
        assert told, f"no problem names {setting}: {raised.value}"

    def test_settings_are_a_frozen_attrs_class(self) -> None:
        assert issubclass(self._class, VendorSettings)
        assert "__attrs_attrs__" in vars(self._class), "decorate the class with @attrs.frozen(kw_only=True)"
        made = settings_of(self.plugins(), self.vendor, self._table())
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            made.rest_url = "https://elsewhere.invalid"

    def test_the_default_urls_are_safe(self) -> None:
        for name, option in options_of(self._class).items():
            if name.endswith("_url") and isinstance(option.default, str):
                assert option.default.startswith(("https://", "wss://")), f"{name} is not encrypted by default"
                assert "//localhost" not in option.default, f"{name} has no default: give the broker's"

    def test_plain_http_to_another_host_is_refused(self) -> None:
        table = self._table()
        for name in options_of(self._class):
            if name.endswith("_url"):
                scheme = "ws" if name.startswith("stream") else "http"
                self._refused({**table, name: f"{scheme}://broker.invalid/"}, name)

    def test_an_unknown_setting_is_refused(self) -> None:
        self._refused({**self._table(), "no_such_setting": 1}, "no_such_setting")

    def test_a_setting_of_the_wrong_kind_is_refused(self) -> None:
        table = self._table()
        for name, option in options_of(self._class).items():
            if not _takes_anything(option):
                self._refused({**table, name: {"a": {"b": [None]}}}, name)

    def test_settings_are_read_from_their_environment_variables(self) -> None:
        table = self._table()
        named = {name: one.env for name, one in options_of(self._class).items() if one.env}
        assert len(set(named.values())) == len(named), "two settings share an environment variable"
        for name, variable in named.items():
            if isinstance(table.get(name), str):
                rest = {key: value for key, value in table.items() if key != name}
                made = settings_of(self.plugins(), self.vendor, rest, {variable or "": table[name]})
                assert getattr(made, name) == table[name]

    def test_secrets_can_come_from_the_environment(self) -> None:
        bare = [name for name, one in options_of(self._class).items() if one.secret and not one.env]
        assert bare == [], "secret(env=...): a secret need not stand in a file"

    def test_every_setting_is_explained_under_its_field(self) -> None:
        told = docs_of(self._class)
        bare = [name for name, option in options_of(self._class).items() if not told.get(option.field.name)]
        assert bare == [], "`marketfeed init` prints the text under each field"

    def test_every_setting_is_documented(self) -> None:
        text = self.documentation
        assert text, "set documentation to the text or the file which users read"
        text = text.read_text(encoding="utf-8") if isinstance(text, Path) else text
        assert [name for name in options_of(self._class) if f"`{name}`" not in text] == []

    def test_secret_settings_are_marked(self) -> None:
        bare = [name for name, one in options_of(self._class).items() if _TELLING.search(name) and not one.secret]
        assert bare == [], "declare them with marketfeed.contract.secret()"

    def test_secrets_do_not_show_in_the_settings(self) -> None:
        made = settings_of(self.plugins(), self.vendor, {**self._table(), **self._secrets()})
        assert _SECRET not in repr(made) + str(made)

    def test_secrets_do_not_show_in_a_session(self) -> None:
        with self.bench() as bench:
            session = bench.session()
            assert session.access_token not in repr(session)
            assert not any(value in repr(session) for value in session.extra.values() if len(value) > 3)

    def test_secrets_do_not_show_when_a_login_fails(self) -> None:
        with self.bench(access_token=None) as bench, _heard() as heard:
            secrets = {name: value for name, value in self._secrets().items() if name != "access_token"}
            try:
                settings = bench.settings(**self.login(bench.box))
                wrong = attrs.evolve(
                    settings, **{name: value for name, value in secrets.items() if hasattr(settings, name)}
                )
                heard.append(repr(bench.plugin.authenticate(wrong, bench.tokens, bench.http)))
            except MarketFeedError as error:
                heard += traceback.format_exception(error)
        assert _SECRET not in "\n".join(heard), "a secret shows in an error, output or the log"

    def test_secrets_do_not_show_in_the_log_of_a_session(self) -> None:
        with self.bench() as bench, _heard() as heard:
            table = {**bench.box.settings(), **self.settings}
            session = bench.session()
            talk = bench.opened(bench.subscription(self.modes[-1], 3))
            bench.parser()(talk.frames(bench.rows([0, 1, 2])))
        secrets = [session.access_token, *self._values(table)]
        shown = [name for name in secrets if name and name in "\n".join(heard)]
        assert shown == []

    def test_the_account_is_a_name(self) -> None:
        made = settings_of(self.plugins(), self.vendor, self._table())
        assert isinstance(made.account, str)
        assert made.account, "account tells two accounts of one vendor apart in the token store"

    def _secrets(self) -> dict[str, str]:
        """A telling value for each secret setting."""
        return {name: f"{_SECRET}-{name}" for name, one in options_of(self._class).items() if one.secret}

    def _values(self, table: Mapping[str, Any]) -> Iterable[str]:
        secret = {name for name, one in options_of(self._class).items() if one.secret}
        return [value for name, value in table.items() if name in secret and isinstance(value, str) and len(value) > 7]
