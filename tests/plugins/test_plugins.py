"""Discovery with real, tiny distributions: a broken one is named, and stops nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from marketfeed import Sink, hookimpl
from marketfeed.contract import Event, Vendor, VendorSettings, secret
from marketfeed.errors import AuthError, PluginError, PluginLoadError, PluginNotFound
from marketfeed.plugins import Plugins

VENDOR = """
from marketfeed.contract import Vendor, VendorSettings
from marketfeed.hookspecs import hookimpl
"""
SINK = """
from marketfeed.contract import Sink
from marketfeed.hookspecs import hookimpl
class Quiet(Sink):
    pass
"""
GOOD_VENDOR = (
    VENDOR
    + """
@hookimpl
def marketfeed_vendor():
    return Vendor(name="good", title="Good", settings=VendorSettings)
"""
)
GOOD_SINK = (
    SINK
    + """
@hookimpl
def marketfeed_sinks():
    return {"good-sink": Quiet}
"""
)

Install = Callable[..., None]
Discover = Callable[..., dict[str, Any]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Put a distribution with one module and one entry point where a child process finds it."""

    def run(distribution: str, source: str, *, entry: str | None = None, version: str = "1.0") -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[marketfeed]\n{entry or distribution} = {module}\n")

    return run


@pytest.fixture
def discover(tmp_path: Path) -> Discover:
    """What a child process discovers; it must survive."""
    program = """
import json
from marketfeed.errors import PluginError
from marketfeed.plugins import Plugins
found = Plugins.discover()
print(json.dumps({
    "vendors": sorted(found.vendors), "sinks": sorted(found.sinks),
    "broken": [[one.name, one.distribution, one.version, one.error] for one in found.broken],
}))
"""

    def run(**environ: str) -> dict[str, Any]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), **environ}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


VENDOR_BREAKAGES = {
    "import error": (
        "import not_there_at_all",
        "import failed: ModuleNotFoundError: No module named 'not_there_at_all'",
    ),
    "syntax error": ("def broken(:", "import failed: SyntaxError: "),
    "exit at import": ("raise SystemExit(0)", "import failed: SystemExit: 0"),
    "wrong argument": (
        VENDOR + "@hookimpl\ndef marketfeed_connect(settings, sesion): ...",
        "marketfeed_connect has no argument 'sesion'; it may take settings, session, http",
    ),
    "unknown hook": (
        VENDOR + "@hookimpl\ndef marketfeed_vendr(): ...",
        "there is no hook 'marketfeed_vendr'; did you mean 'marketfeed_vendor'?",
    ),
    "wrong result": (
        VENDOR + "@hookimpl\ndef marketfeed_vendor(): return {'name': 'acme'}",
        "marketfeed_vendor must return a Vendor, not dict",
    ),
    "wrong settings": (
        VENDOR + "@hookimpl\ndef marketfeed_vendor(): return Vendor(name='acme', title='Acme', settings=dict)",
        "Vendor.settings must be an attrs class made from VendorSettings, not <class 'dict'>",
    ),
    "raising hook": (
        VENDOR + "@hookimpl\ndef marketfeed_vendor(): raise RuntimeError('no licence')",
        "marketfeed_vendor failed: RuntimeError: no licence",
    ),
    "exiting hook": (
        VENDOR + "@hookimpl\ndef marketfeed_vendor(): raise SystemExit('bye')",
        "marketfeed_vendor failed: SystemExit: bye",
    ),
}
SINK_BREAKAGES = {
    "import error": (
        "from marketfeed import NoSuchThing",
        "import failed: ImportError: cannot import name 'NoSuchThing'",
    ),
    "exit at import": ("import sys; sys.exit('stop')", "import failed: SystemExit: stop"),
    "wrong argument": (
        SINK + "@hookimpl\ndef marketfeed_sinks(config): return {}",
        "marketfeed_sinks has no argument 'config'; it takes none",
    ),
    "wrong result": (
        SINK + "@hookimpl\ndef marketfeed_sinks(): return [Quiet]",
        "marketfeed_sinks must return a mapping of name to class, not list",
    ),
    "instance instead of class": (
        SINK + "@hookimpl\ndef marketfeed_sinks(): return {'quiet': Quiet()}",
        "marketfeed_sinks must map names to Sink classes; 'quiet' is Quiet",
    ),
    "returns nothing": (
        SINK + "@hookimpl\ndef marketfeed_sinks(): pass",
        "marketfeed_sinks must return a mapping of name to class, not None",
    ),
    "raising hook": (
        SINK + "@hookimpl\ndef marketfeed_sinks(): return {}['x']",
        "marketfeed_sinks failed: KeyError: 'x'",
    ),
    "no hook": (SINK, "it implements no hook; is @hookimpl missing?"),
    "unmarked hook": (SINK + "def marketfeed_sinks(): return {}", "marketfeed_sinks is not marked with @hookimpl"),
}


@pytest.mark.process
@pytest.mark.parametrize("name", VENDOR_BREAKAGES)
def test_a_broken_vendor_plugin_is_named_and_stops_nobody(name: str, install: Install, discover: Discover) -> None:
    source, error = VENDOR_BREAKAGES[name]
    install("acme-vendor", source, entry="acme")
    install("good-vendor", GOOD_VENDOR, entry="good")
    found = discover()
    assert found["broken"][0][:3] == ["acme", "acme-vendor", "1.0"]
    assert found["broken"][0][3].startswith(error)
    assert len(found["broken"]) == 1
    assert "good" in found["vendors"]
    assert "acme" not in found["vendors"]


@pytest.mark.process
@pytest.mark.parametrize("name", SINK_BREAKAGES)
def test_a_broken_sink_plugin_is_named_and_stops_nobody(name: str, install: Install, discover: Discover) -> None:
    source, error = SINK_BREAKAGES[name]
    install("acme-sink", source, entry="acme")
    install("good-sink", GOOD_SINK)
    found = discover()
    assert found["broken"][0][:3] == ["acme", "acme-sink", "1.0"]
    assert found["broken"][0][3].startswith(error)
    assert len(found["broken"]) == 1
    assert {"good-sink", "stdout", "jsonl"} <= set(found["sinks"])


@pytest.mark.process
def test_an_entry_point_given_twice_is_reported_with_both_owners(install: Install, discover: Discover) -> None:
    install("first", GOOD_VENDOR, entry="good")
    install("second", GOOD_VENDOR, entry="good", version="2.0")
    found = discover()
    text = "the entry point 'good' is given twice, by first 1.0 and second 2.0; uninstall or disable one of them"
    assert found["broken"] == [["good", "first", "1.0", text], ["good", "second", "2.0", text]]
    assert "good" not in found["vendors"]


@pytest.mark.process
def test_a_sink_name_given_twice_belongs_to_nobody(install: Install, discover: Discover) -> None:
    install("first", GOOD_SINK)
    install("second", GOOD_SINK, version="2.0")
    found = discover()
    text = "the sink name 'good-sink' is given twice, by first 1.0 and second 2.0; uninstall or disable one of them"
    assert found["broken"] == [["first", "first", "1.0", text], ["second", "second", "2.0", text]]
    assert "good-sink" not in found["sinks"]


@pytest.mark.process
def test_a_vendor_name_given_twice_belongs_to_nobody(install: Install, discover: Discover) -> None:
    install("first", GOOD_VENDOR)
    install("second", GOOD_VENDOR)
    found = discover()
    assert [one[:2] for one in found["broken"]] == [["first", "first"], ["second", "second"]]
    assert "good" not in found["vendors"]


@pytest.mark.process
def test_nobody_can_take_a_name_of_the_core(install: Install, discover: Discover) -> None:
    install("a-thief", GOOD_SINK.replace("good-sink", "stdout"))
    found = discover()
    assert [one[:2] for one in found["broken"]] == [["a-thief", "a-thief"]]
    assert "stdout" in found["sinks"]


@pytest.mark.process
def test_plugins_can_be_switched_off_by_name_or_all(install: Install, discover: Discover) -> None:
    install("acme-vendor", "raise SystemExit", entry="acme")
    install("good-vendor", GOOD_VENDOR, entry="good")
    some = discover(MARKETFEED_DISABLE_PLUGINS="acme, kite")
    assert some["broken"] == []
    assert "good" in some["vendors"]
    assert "kite" not in some["vendors"]
    none = discover(MARKETFEED_DISABLE_PLUGINS="*")
    assert none["vendors"] == []
    assert "stdout" in none["sinks"], "the core's own sinks stay"


def test_the_built_in_sinks_come_through_the_same_door() -> None:
    found = Plugins.discover(environ={})
    assert found.owner("sink", "stdout").distribution == "marketfeed"


# --- in this process ----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class AcmeSettings(VendorSettings):
    api_key: str = secret(default="hunter2-hunter2")


class Acme:
    """A vendor plugin as an object; a test overrides what it needs."""

    @hookimpl
    def marketfeed_vendor(self) -> Vendor:
        return Vendor(name="acme", title="Acme", settings=AcmeSettings)


def test_a_hook_that_is_missing_is_a_plugin_error() -> None:
    with pytest.raises(PluginError, match=r"^Acme does not implement marketfeed_connect$"):
        Plugins.of(Acme()).vendor("acme").connect(AcmeSettings(), None, None)  # type: ignore[arg-type]


def test_a_result_of_the_wrong_type_is_named() -> None:
    class Wrong(Acme):
        @hookimpl
        def marketfeed_authenticate(self, settings: Any) -> Any:
            return "token"

        @hookimpl
        def marketfeed_connect(self) -> Any:
            return object()

        @hookimpl
        def marketfeed_parser(self) -> Any:
            return None

    vendor = Plugins.of(Wrong()).vendor("acme")
    nothing: Any = None
    with pytest.raises(PluginError, match="marketfeed_authenticate must return a Session, not str"):
        vendor.authenticate(AcmeSettings(), nothing, nothing)
    with pytest.raises(PluginError, match=r"marketfeed_connect must return a Stream \(no handshake, opened"):
        vendor.connect(AcmeSettings(), nothing, nothing)
    with pytest.raises(PluginError, match="marketfeed_parser must return a result, not None"):
        vendor.parser(AcmeSettings(), nothing)


def test_a_login_page_may_be_missing_but_is_never_of_the_wrong_type() -> None:
    class Undecided(Acme):
        @hookimpl
        def marketfeed_login_url(self) -> Any:
            return None

    class Wrong(Acme):
        @hookimpl
        def marketfeed_login_url(self) -> Any:
            return "https://acme.example/login"

        @hookimpl
        def marketfeed_quotes(self) -> Any:
            return [1.0]

    nothing: Any = None
    settings = AcmeSettings()
    assert Plugins.of(Acme()).vendor("acme").login_page(settings) is None
    assert Plugins.of(Undecided()).vendor("acme").login_page(settings) is None
    with pytest.raises(PluginError, match="must return a LoginPage, not str"):
        Plugins.of(Wrong()).vendor("acme").login_page(settings)
    with pytest.raises(PluginError, match="must return rows of TICK, not list"):
        Plugins.of(Wrong()).vendor("acme").quotes(settings, nothing, nothing, [], "ltp")


def test_errors_of_our_own_tree_pass_and_others_are_wrapped_with_their_cause() -> None:
    class Failing(Acme):
        @hookimpl
        def marketfeed_authenticate(self) -> Any:
            raise AuthError("wrong password")

        @hookimpl
        def marketfeed_instruments(self) -> Any:
            raise KeyError("data")

    vendor = Plugins.of(Failing()).vendor("acme")
    nothing: Any = None
    with pytest.raises(AuthError):
        vendor.authenticate(AcmeSettings(), nothing, nothing)
    with pytest.raises(PluginError, match="marketfeed_instruments failed: KeyError: 'data'") as caught:
        vendor.instruments(AcmeSettings(), nothing, nothing)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_secret_in_a_plugins_error_is_taken_out_with_its_original() -> None:
    class Leaking(Acme):
        @hookimpl
        def marketfeed_authenticate(self, settings: AcmeSettings) -> Any:
            raise ValueError(f"GET https://x?api_key={settings.api_key}")

    nothing: Any = None
    with pytest.raises(PluginError, match=r"api_key=\*\*\*") as caught:
        Plugins.of(Leaking()).vendor("acme").authenticate(AcmeSettings(), nothing, nothing)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_vendor_hooks_are_called_on_their_own_plugin_alone() -> None:
    class Other:
        @hookimpl
        def marketfeed_vendor(self) -> Vendor:
            return Vendor(name="other", title="Other", settings=VendorSettings)

        @hookimpl
        def marketfeed_parser(self) -> Any:
            raise AssertionError("the parser of another vendor was asked for")

    mine: Any = len

    class WithParser(Acme):
        @hookimpl
        def marketfeed_parser(self, instruments: Mapping[str, int]) -> Any:
            return mine

    nothing: Any = None
    assert Plugins.of(Other(), WithParser()).vendor("acme").parser(AcmeSettings(), nothing) is mine


def test_an_implementation_under_another_name_is_refused() -> None:
    class Renamed:
        @hookimpl(specname="marketfeed_sinks")
        def my_sinks(self) -> Mapping[str, type[Sink]]:
            return {}

    broken = Plugins.of(Renamed()).broken
    assert [one.error for one in broken] == ["my_sinks uses specname='marketfeed_sinks'; name the function so instead"]


def test_an_argument_with_a_default_is_refused_because_it_would_never_be_passed() -> None:
    class Defaulted(Acme):
        @hookimpl
        def marketfeed_connect(self, settings: Any, http: Any = None) -> Any: ...

    error = "marketfeed_connect gives 'http' a default, so it would never be passed; remove it"
    assert [one.error for one in Plugins.of(Defaulted()).broken] == [error]


def test_an_event_reaches_everybody_although_one_raises(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    class Deaf:
        @hookimpl
        def marketfeed_event(self, event: Event) -> None:
            raise RuntimeError("not today")

    class Listening:
        @hookimpl
        def marketfeed_event(self, event: Event) -> None:
            heard.append(event.kind)

    Plugins.of(Deaf(), Listening()).notify(Event(kind="connected", feed="main", at_ns=1))
    assert heard == ["connected"]
    assert "marketfeed_event of Deaf failed for event 'connected'" in caplog.text


# --- names --------------------------------------------------------------------------------------


def test_an_uninstalled_plugin_of_ours_is_named_with_its_extra() -> None:
    with pytest.raises(PluginNotFound, match=r"vendor 'kite'; install it: pip install 'marketfeed\[kite\]'$"):
        Plugins.of().vendor("kite")
    with pytest.raises(PluginNotFound, match=r"sink 'kafka'; install it: pip install 'marketfeed\[kafka\]'$"):
        Plugins.of().sink("kafka")


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(PluginNotFound, match=r"vendor 'acmee'; did you mean 'acme'\?$"):
        Plugins.of(Acme()).vendor("acmee")
    with pytest.raises(PluginNotFound, match=r"vendor 'zzz'; there are acme$"):
        Plugins.of(Acme()).vendor("zzz")


def test_a_broken_plugin_of_that_name_is_the_reason_and_its_error_is_chained() -> None:
    class Broken:
        __name__ = "acme"

        @hookimpl
        def marketfeed_vendor(self) -> Vendor:
            raise RuntimeError("no licence")

    with pytest.raises(PluginLoadError, match=r"'acme' cannot be used: .*RuntimeError: no licence") as caught:
        Plugins.of(Broken()).vendor("acme")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_broken_plugin_of_another_name_is_mentioned() -> None:
    class Broken:
        @hookimpl
        def marketfeed_vendor(self) -> Vendor:
            raise RuntimeError("no licence")

    with pytest.raises(PluginNotFound, match="not usable: Broken: marketfeed_vendor failed: RuntimeError: no licence"):
        Plugins.of(Broken()).vendor("acme")
