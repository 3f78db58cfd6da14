"""Configuration: what a file becomes, and the exact words for what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal

import attrs
import pytest

from marketfeed import Mode, Sink, hookimpl
from marketfeed.config import Config, build, load, redacted, secrets_of
from marketfeed.contract import Vendor, VendorSettings, base_url, secret, setting
from marketfeed.errors import ConfigError
from marketfeed.plugins import Plugins


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


@attrs.frozen(kw_only=True)
class AcmeSettings(VendorSettings):
    rest_url: str = base_url("https://api.acme.test")
    api_key: str = secret(env="ACME_KEY", validator=attrs.validators.matches_re("[a-z0-9-]+"))
    """Key of the app"""
    user_id: str | None = setting(default=None, env="ACME_USER")
    retries: int = attrs.field(default=3, validator=attrs.validators.le(9))


@attrs.define
class FileSink(Sink):
    path: Path
    fields: tuple[str, ...] = ()
    side: Side = Side.BUY
    gzip: bool = False
    level: Literal[1, 2] = 1
    ratio: float = 0.5
    password: str | None = secret(default=None)
    exclusive: ClassVar[tuple[str, ...]] = ("path",)


@attrs.define
class ServerSink(Sink):
    port: int = 9000
    exclusive: ClassVar[tuple[str, ...]] = ("port",)


class StdoutSink(Sink):
    """No options at all, not even an attrs class."""


class Acme:
    @hookimpl
    def marketfeed_vendor(self) -> Vendor:
        return Vendor(name="acme", title="Acme", settings=AcmeSettings)

    @hookimpl
    def marketfeed_sinks(self) -> Mapping[str, type[Sink]]:
        return {"file": FileSink, "server": ServerSink, "stdout": StdoutSink}


PLUGINS = Plugins.of(Acme())
KEY = "s3cret-of-acme"
GOOD = """\
[feeds.main]
vendor = "acme"
mode = "full"
instruments = ["NSE:RELIANCE", "NFO:NIFTY*FUT", "@nifty50"]
sinks = ["stdout", "archive"]

[vendors.acme]
api_key = { env = "ACME_KEY" }
retries = 5

[sinks.archive]
type = "file"
path = "data/{kind}-{feed}.txt"
gzip = true

[journal]
keep_bytes = "2GB"

[metrics]
port = { env = "PORT", default = 3001 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "feed.toml"


def loaded(file: Path, text: str, /, **environ: str) -> Config:
    file.write_text(text)
    return load(file, PLUGINS, {"ACME_KEY": KEY, **environ})


def problems(file: Path, text: str, /, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(file, text, **environ)
    return [str(one) for one in caught.value.problems]


# --- a good file --------------------------------------------------------------------------------


def test_a_file_becomes_frozen_classes(file: Path) -> None:
    config = loaded(file, GOOD)
    feed = config.feeds["main"]
    assert (feed.name, feed.vendor, feed.mode, feed.calendar) == ("main", "acme", Mode.FULL, "NSE")
    assert feed.instruments == ("NSE:RELIANCE", "NFO:NIFTY*FUT", "@nifty50")
    assert config.vendor_of("main").settings == AcmeSettings(api_key=KEY, retries=5)
    assert [one.type for one in config.sinks_of("main")] == ["stdout", "file"]
    assert config.journal.keep_bytes == 2_000_000_000
    assert config.metrics.port == 3001
    assert config.warnings == ()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        feed.vendor = "other"  # type: ignore[misc]


def test_feed_and_kind_are_put_into_a_sinks_options_and_nothing_else(file: Path) -> None:
    sink = loaded(file, GOOD.replace("{kind}-", "{kind}-{symbol}-")).sinks["archive"]
    assert sink.make("main") == FileSink(path=Path("data/ticks-{symbol}-main.txt"), gzip=True)
    assert sink.make("main", "candles") == FileSink(path=Path("data/candles-{symbol}-main.txt"), gzip=True)
    assert sink.make("main") is not sink.make("main")


def test_a_password_with_a_placeholder_in_it_is_left_alone(file: Path) -> None:
    text = GOOD.replace("gzip = true", 'password = "a{feed}b"')
    made = loaded(file, text).sinks["archive"].make("main")
    assert isinstance(made, FileSink)
    assert made.password == "a{feed}b"


def test_common_options_of_a_sink_are_not_its_own(file: Path) -> None:
    sink = loaded(file, GOOD.replace("gzip = true", 'batch_rows = 10\nstart = "oldest"')).sinks["archive"]
    assert (sink.batch_rows, sink.start, sink.flush_every_s) == (10, "oldest", 1.0)
    assert set(sink.options) == {"path"}


def test_a_file_may_come_from_windows(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(file, PLUGINS, {"ACME_KEY": KEY}).feeds["main"].vendor == "acme"


# --- twenty and more mistakes -------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, str, str]] = {
    "syntax": (
        'mode = "full"',
        'mode = "full',
        "the file (line 3): is not valid TOML: Illegal character '\\n' (column 13)",
    ),
    "unknown section": ("[metrics]", "[metric]", "metric (line 19): is not a section; did you mean 'metrics'?"),
    "unknown key in a feed": (
        'mode = "full"',
        'moed = "full"',
        "feeds.main.moed (line 3): is not an option here; did you mean 'mode'?",
    ),
    "unknown key of a vendor": (
        "retries = 5",
        "retires = 5",
        "vendors.acme.retires (line 9): is not an option here; did you mean 'retries'?",
    ),
    "unknown key of a sink": (
        "gzip = true",
        "batch_row = 5",
        "sinks.archive.batch_row (line 14): is not an option here; did you mean 'batch_rows'?",
    ),
    "missing key": (
        'vendor = "acme"\n',
        "",
        "feeds.main.vendor (line 1): is missing; write vendor = ...",
    ),
    "missing option of a sink": (
        'path = "data/{kind}-{feed}.txt"\n',
        "",
        "sinks.archive.path (line 11): is missing; write path = ...",
    ),
    "text for a number": (
        "retries = 5",
        'retries = "5"',
        "vendors.acme.retries (line 9): must be a whole number, not '5'",
    ),
    "number for text": (
        'vendor = "acme"',
        "vendor = 7",
        "feeds.main.vendor (line 2): must be text in quotes, not 7",
    ),
    "text for a truth value": (
        "gzip = true",
        'gzip = "yes"',
        "sinks.archive.gzip (line 14): must be true or false, not 'yes'",
    ),
    "text for a list": (
        'sinks = ["stdout", "archive"]',
        'sinks = "stdout"',
        "feeds.main.sinks (line 5): must be a list, not 'stdout'",
    ),
    "number in a list of texts": (
        "gzip = true",
        'fields = ["a", 1]',
        "sinks.archive.fields (line 14): must be a list of which each item is text in quotes, not a list",
    ),
    "unknown mode": (
        'mode = "full"',
        'mode = "fulll"',
        'feeds.main.mode (line 3): must be "ltp", "quote" or "full", not \'fulll\'',
    ),
    "unknown calendar": (
        'mode = "full"',
        'calendar = "NYSE"',
        (
            'feeds.main.calendar (line 3): must be "NSE" or "always", or a .json file with hours and holidays, '
            "not 'NYSE'"
        ),
    ),
    "unknown choice": (
        "gzip = true",
        'side = "hold"',
        'sinks.archive.side (line 14): must be "buy" or "sell", not \'hold\'',
    ),
    "unset variable": (
        'env = "ACME_KEY"',
        'env = "ACME_KEI"',
        "vendors.acme.api_key (line 8): the environment variable ACME_KEI is not set; set it, or write it to .env",
    ),
    "unknown vendor": (
        'vendor = "acme"',
        'vendor = "acne"',
        "feeds.main.vendor (line 2): there is no table [vendors.acne]; did you mean 'acme'?",
    ),
    "vendor of ours that is not installed": (
        'vendor = "acme"',
        'vendor = "kite"',
        (
            "feeds.main.vendor (line 2): no installed plugin has a vendor 'kite'; "
            "install it: pip install 'marketfeed[kite]'"
        ),
    ),
    "unknown sink in a feed": (
        '"archive"]',
        '"archiv"]',
        "feeds.main.sinks (line 5): there is no table [sinks.archiv]; did you mean 'archive'?",
    ),
    "sink of ours that is not installed": (
        '"archive"]',
        '"archive", "kafka"]',
        (
            "feeds.main.sinks (line 5): there is no table [sinks.kafka], and no plugin gives a sink 'kafka'; "
            "install it: pip install 'marketfeed[kafka]'"
        ),
    ),
    "sink that needs options": (
        '"archive"]',
        '"archive", "file"]',
        "feeds.main.sinks (line 5): the sink 'file' needs a table [sinks.file] with path",
    ),
    "unknown type of a sink": (
        'type = "file"',
        'type = "fille"',
        "sinks.archive.type (line 12): no installed plugin has a sink 'fille'; did you mean 'file'?",
    ),
    "sink named twice": (
        '"archive"]',
        '"archive", "archive"]',
        "feeds.main.sinks (line 5): 'archive' is named twice",
    ),
    "no instruments": (
        '["NSE:RELIANCE", "NFO:NIFTY*FUT", "@nifty50"]',
        "[]",
        'feeds.main.instruments (line 4): is empty; name at least one, such as "NSE:RELIANCE"',
    ),
    "instrument without exchange": (
        '"NSE:RELIANCE"',
        '"RELIANCE"',
        "feeds.main.instruments (line 4): 'RELIANCE' has no exchange; write it as EXCHANGE:SYMBOL",
    ),
    "validator of a plugin": (
        "retries = 5",
        "retries = 10",
        "vendors.acme.retries (line 9): is not valid ('retries' must be <= 9: 10)",
    ),
    "plain http": (
        "retries = 5",
        'rest_url = "http://api.acme.test"',
        (
            "vendors.acme.rest_url (line 9): is not valid "
            "(plain http is accepted for loopback addresses only; use https)"
        ),
    ),
    "bad size": (
        'keep_bytes = "2GB"',
        'keep_bytes = "2 apples"',
        'journal.keep_bytes (line 17): must be a size such as "4GB" or "128MiB", not \'2 apples\'',
    ),
    "negative time": (
        'keep_bytes = "2GB"',
        "segment_rows = 1",
        "journal.segment_rows (line 17): must be at least 1024, not 1",
    ),
    "bad port": (
        "default = 3001",
        "default = 70000",
        "metrics.port (line 20): must be a port from 0 to 65535, or false, not 70000",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place_and_its_remedy(name: str, file: Path) -> None:
    good, bad, message = MISTAKES[name]
    assert good in GOOD
    said = problems(file, GOOD.replace(good, bad, 1))
    assert said == [message]


def test_every_problem_is_told_at_once_in_the_order_of_the_file(file: Path) -> None:
    text = GOOD.replace('"full"', '"half"').replace("retries = 5", 'retries = "x"').replace("2GB", "x")
    assert [one.split(" ")[0] for one in problems(file, text)] == [
        "feeds.main.mode",
        "vendors.acme.retries",
        "journal.keep_bytes",
    ]


def test_a_feed_with_one_mistake_is_still_checked_for_others(file: Path) -> None:
    text = GOOD.replace('"full"', '"half"').replace('"archive"]', '"archiv"]').replace('"NSE:RELIANCE"', '"X"')
    assert [one.split(":")[0] for one in problems(file, text)] == [
        "feeds.main.mode (line 3)",
        "feeds.main.instruments (line 4)",
        "feeds.main.sinks (line 5)",
    ]


def test_the_error_counts_the_problems_and_names_the_file(file: Path) -> None:
    file.write_text("[feeds]\n")
    with pytest.raises(ConfigError) as caught:
        load(file, PLUGINS, {})
    assert str(caught.value) == f"{file}: 1 problem\n  feeds (line 1): no feed is defined; add a table [feeds.main]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "feeds: no feed is defined; add a table [feeds.main]"),
        ("feeds = 1", "feeds (line 1): must be tables such as [feeds.main]"),
        ("[feeds]\nmain = 1", "feeds.main (line 2): must be a table [feeds.main]"),
        (
            "journal = 1\n" + GOOD.replace('[journal]\nkeep_bytes = "2GB"\n', ""),
            "journal (line 1): must be a table [journal]",
        ),
        (
            GOOD + '[feeds."a/b"]\nvendor = "acme"\n',
            "feeds.a/b (line 21): has a name that cannot be used; use letters, digits, - and _",
        ),
    ],
)
def test_wrong_shapes_are_named(file: Path, text: str, message: str) -> None:
    assert problems(file, text) == [message]


def test_a_missing_or_unreadable_file_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file; `marketfeed init` writes one"):
        load(tmp_path / "none.toml", PLUGINS, {})
    (tmp_path / "latin.toml").write_bytes("# \xe9".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 2\)"):
        load(tmp_path / "latin.toml", PLUGINS, {})


# --- two of a kind ------------------------------------------------------------------------------

SECOND_FEED = '\n[feeds.second]\nvendor = "acme"\ninstruments = ["NSE:INFY"]\nsinks = ["archive"]\n'


def test_two_feeds_may_share_a_sink_whose_path_names_the_feed(file: Path) -> None:
    assert set(loaded(file, GOOD + SECOND_FEED).feeds) == {"main", "second"}


def test_two_feeds_must_not_write_to_one_place(file: Path) -> None:
    text = GOOD.replace("{kind}-{feed}.txt", "all.txt") + SECOND_FEED
    message = (
        "sinks.archive.path (line 13): feeds 'main' and 'second' would write to the same place; put {feed} into it"
    )
    assert problems(file, text) == [message]


def test_two_sinks_must_not_write_to_one_place(file: Path) -> None:
    other = '[sinks.copy]\ntype = "file"\npath = "./data/../data/ticks-main.txt"\n'
    text = GOOD.replace('"archive"]', '"archive", "copy"]') + other
    message = "sinks.copy.path (line 23): is the same place as that of [sinks.archive]; give each its own"
    assert problems(file, text) == [message]


def test_a_port_is_listened_on_once(file: Path) -> None:
    text = GOOD.replace('"archive"]', '"archive", "server"]') + "[sinks.server]\nport = 3001\n"
    assert problems(file, text) == ["sinks.server.port (line 22): port 3001 is taken by metrics.port; use another"]


def test_what_nobody_uses_is_a_warning(file: Path) -> None:
    text = GOOD.replace(', "archive"]', "]") + '[vendors.spare]\ntype = "acme"\napi_key = "x"\n'
    warnings = [str(one) for one in loaded(file, text).warnings]
    assert warnings == ["vendors.spare (line 21): no feed uses it", "sinks.archive (line 11): no feed uses it"]


# --- the environment ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("gzip", "true", True),
        ("gzip", "OFF", False),
        ("gzip", "1", True),
        ("level", "2", 2),
        ("ratio", "1e-3", 0.001),
        ("fields", "a, b,,c", ("a", "b", "c")),
        ("fields", "a", ("a",)),
        ("side", "sell", Side.SELL),
        ("path", "x/y", Path("x/y")),
    ],
)
def test_text_of_the_environment_becomes_the_wanted_type(file: Path, key: str, text: str, value: object) -> None:
    options = "" if key == "path" else 'path = "x"\n'
    table = f'[sinks.archive]\ntype = "file"\n{options}{key} = {{ env = "IT" }}\n'
    sink = loaded(file, GOOD[: GOOD.index("[sinks.archive]")] + table, IT=text).sinks["archive"]
    assert sink.options[key] == value
    assert type(sink.options[key]) is type(value)


@pytest.mark.parametrize(
    ("port", "want"), [("4000", 4000), ("off", None), ("false", None), ("0", 0), ("", 3001), (None, 3001)]
)
def test_a_port_from_the_environment(file: Path, port: str | None, want: int | None) -> None:
    environ = {} if port is None else {"PORT": port}
    assert loaded(file, GOOD, **environ).metrics.port == want


def test_a_bad_text_of_the_environment_names_the_variable(file: Path) -> None:
    assert problems(file, GOOD, PORT="abc") == [
        "metrics.port (line 20): must be a port from 0 to 65535, or false, not 'abc' (from PORT)"
    ]


def test_instruments_from_one_variable(file: Path) -> None:
    text = GOOD.replace('["NSE:RELIANCE", "NFO:NIFTY*FUT", "@nifty50"]', '{ env = "INSTRUMENTS", default = ["NSE:A"] }')
    assert loaded(file, text, INSTRUMENTS="NSE:INFY, NSE:TCS").feeds["main"].instruments == ("NSE:INFY", "NSE:TCS")
    assert loaded(file, text).feeds["main"].instruments == ("NSE:A",)


def test_a_log_level_may_be_in_capitals_in_the_environment(file: Path) -> None:
    assert loaded(file, GOOD + '[log]\nlevel = { env = "LEVEL" }\n', LEVEL="WARNING").log.level == "warning"


def test_an_env_file_beside_the_toml_is_read_but_the_real_environment_wins(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file.parent / ".env").write_text("ACME_KEY=from-file\nPORT=4000\n# comment\nODD=${HOME}x\n")
    monkeypatch.delenv("ACME_KEY", raising=False)
    file.write_text(GOOD.replace("retries = 5", 'user_id = { env = "ODD" }'))
    config = load(file, PLUGINS, {"PORT": "5000"})
    settings = config.vendors["acme"].settings
    assert isinstance(settings, AcmeSettings)
    assert (settings.api_key, settings.user_id) == ("from-file", "${HOME}x")
    assert config.metrics.port == 5000
    import os

    assert "ACME_KEY" not in os.environ, "nothing is put into the process"


def test_a_setting_takes_the_variable_it_declares(file: Path) -> None:
    text = GOOD.replace('api_key = { env = "ACME_KEY" }\n', "")
    settings = loaded(file, text, ACME_USER="u1").vendors["acme"].settings
    assert settings == AcmeSettings(api_key=KEY, user_id="u1", retries=5)


def test_a_vendor_needs_no_table_when_the_environment_says_it_all(file: Path) -> None:
    text = GOOD[: GOOD.index("[vendors")] + GOOD[GOOD.index("[sinks.") :]
    assert loaded(file, text).vendor_of("main").settings == AcmeSettings(api_key=KEY)
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"vendors\.acme\.api_key: is missing, and ACME_KEY is not set; set it"):
        load(file, PLUGINS, {})


def test_a_second_account_does_not_take_the_first_ones_credentials(file: Path) -> None:
    text = GOOD.replace('vendor = "acme"', 'vendor = "second"') + '[vendors.second]\ntype = "acme"\n'
    assert problems(file, text) == [
        'vendors.second.api_key (line 21): is missing; write api_key = { env = "ACME_KEY" }'
    ]
    config = loaded(file, text + 'api_key = { env = "KEY2" }\n', KEY2="k2", ACME_USER="u1")
    assert config.vendor_of("main").settings == AcmeSettings(api_key="k2")


def test_an_empty_text_is_nothing_where_nothing_is_allowed(file: Path) -> None:
    text = GOOD.replace("retries = 5", 'user_id = { env = "NOBODY", default = "" }')
    assert loaded(file, text).vendors["acme"].settings == AcmeSettings(api_key=KEY)


def test_a_placeholder_stands_in_for_credentials_that_are_not_set(file: Path) -> None:
    file.write_text(GOOD)
    assert load(file, PLUGINS, {}, placeholder="sandbox").vendors["acme"].settings == AcmeSettings(
        api_key="sandbox", retries=5
    )
    assert load(file, PLUGINS, {"ACME_KEY": KEY}, placeholder="sandbox").vendors["acme"].settings == AcmeSettings(
        api_key=KEY, retries=5
    )


# --- without a file -----------------------------------------------------------------------------


def test_a_configuration_from_python_values() -> None:
    values = {
        "feeds": {"main": {"vendor": "acme", "instruments": ("NSE:A",), "mode": Mode.LTP, "sinks": ["out"]}},
        "sinks": {"out": {"type": "file", "path": Path("x")}},
        "metrics": {"port": False},
    }
    config = build(values, PLUGINS, {"ACME_KEY": KEY})
    assert config.feeds["main"].mode is Mode.LTP
    assert config.metrics.port is None
    assert config.source is None
    with pytest.raises(ConfigError, match=r"^configuration: 1 problem\n  feeds\.main\.instruments: is empty"):
        build({"feeds": {"main": {"vendor": "acme"}}}, PLUGINS, {"ACME_KEY": KEY})


# --- secrets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('{ env = "ACME_KEY" }', '"UPPER-s3cret"'),
        ('{ env = "ACME_KEY" }', "[1, 'UPPER-s3cret']"),
        ('{ env = "ACME_KEY" }', "{ env = 'SHOUT' }"),
        ("gzip = true", "password = ['UPPER-s3cret']"),
        ("retries = 5", 'rest_url = "http://user:UPPER-s3cret@api.test"'),
        ("retries = 5", 'rest_url = "nonsense://user:UPPER-s3cret@api.test"'),
    ],
)
def test_no_secret_shows_in_a_problem(file: Path, good: str, bad: str) -> None:
    said = problems(file, GOOD.replace(good, bad), SHOUT="UPPER-s3cret")
    assert len(said) == 1
    assert "s3cret" not in said[0]


def test_no_secret_shows_in_a_configuration(file: Path) -> None:
    config = loaded(file, GOOD.replace("gzip = true", 'password = "pass-s3cret"') + "", ACME_USER="u")
    config_text = json.dumps(redacted(config)) + repr(config) + repr(config.vendors) + repr(config.sinks)
    assert "s3cret" not in config_text
    assert redacted(config)["vendors"]["acme"]["api_key"] == "***"
    assert redacted(config)["sinks"]["archive"]["password"] == "***"
    assert redacted(config)["feeds"]["main"]["mode"] == "full"


def test_a_proxy_password_is_not_shown(file: Path) -> None:
    config = loaded(file, GOOD.replace("retries = 5", 'proxy = "http://me:pw@proxy.test:8080"'))
    assert redacted(config)["vendors"]["acme"]["proxy"] == "http://***@proxy.test:8080"


def test_the_secrets_of_a_configuration_are_known_also_a_proxys_password(file: Path) -> None:
    given = 'proxy = "http://me:p%40ss-s3cret@proxy.test:8080"'
    text = GOOD.replace("retries = 5", given).replace("gzip = true", 'password = "sink-s3cret"')
    known = secrets_of(loaded(file, text))
    assert {"p%40ss-s3cret", "p@ss-s3cret", "sink-s3cret"} <= known


def test_a_sink_whose_annotations_cannot_be_read_is_named(file: Path) -> None:
    @attrs.define
    class OddSink(Sink):
        x: NoSuchType = None  # type: ignore[name-defined]  # noqa: F821

    class Odd:
        @hookimpl
        def marketfeed_sinks(self) -> Mapping[str, type[Sink]]:
            return {"odd": OddSink}

    values = {"feeds": {"main": {"vendor": "acme", "instruments": ["NSE:A"]}}, "sinks": {"odd": {}}}
    with pytest.raises(
        ConfigError, match=r"sinks\.odd: the options of the sink 'odd' cannot be read: name 'NoSuchType'"
    ):
        build(values, Plugins.of(Acme(), Odd()), {"ACME_KEY": KEY})


def test_a_feed_of_an_exchange_that_closes_later_is_warned_of_the_calendar(file: Path) -> None:
    good = GOOD.replace('mode = "full"', 'mode = "full"\ncalendar = "always"')
    for text, count in ((GOOD, 1), (good, 0)):
        listed = text.replace('instruments = ["', 'instruments = ["MCX:CRUDEOIL FUT 1", "', 1)
        assert listed != text
        warnings = [str(one) for one in loaded(file, listed).warnings]
        assert len(warnings) == count
        assert all("feeds.main.calendar" in one and "MCX trades when NSE is closed" in one for one in warnings)


def test_an_environment_file_that_is_no_text_is_named(file: Path) -> None:
    (file.parent / ".env").write_bytes("KITE_API_KEY=x".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"(?s)\.env.*cannot be read: it is not UTF-8 text"):
        loaded(file, GOOD)
