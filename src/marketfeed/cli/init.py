"""``marketfeed init``: a commented feed.toml, made from the settings classes of what it will use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from marketfeed.cli._output import warn

if TYPE_CHECKING:
    from marketfeed.config.options import Option
    from marketfeed.plugins import Plugins

__all__ = ["command"]

_INSTRUMENTS = ["NSE:RELIANCE", "NSE:INFY", "NSE:TCS", "NSE:HDFCBANK"]
_WIDTH = 100


@click.command(short_help="Write a commented feed.toml to start from.")
@click.option("--vendor", help="Vendor plugin to use; by default the first installed one, kite before others.")
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    help="Sink to use, once for each; by default stdout, jsonl, and those that were installed, such as kafka.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default="feed.toml", show_default=True)
@click.option("--force", is_flag=True, help="Replace files that are there.")
def command(vendor: str | None, sinks: tuple[str, ...], output: Path, force: bool) -> None:
    """Write a configuration with every option explained, and a .env.example beside it.

    Credentials are not asked for and not written: they come from the environment, or from a file .env
    beside the configuration.
    """
    from marketfeed.plugins import Plugins

    plugins = Plugins.discover()
    example = output.parent / ".env.example"
    there = [file for file in (output, example) if file.exists()]
    if there and not force:
        raise click.ClickException(f"{' and '.join(map(str, there))} exists; --force replaces it")
    writer = _Writer(plugins, vendor or _first_vendor(plugins), sinks or _usual_sinks(plugins))
    text = writer.toml()
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    example.write_text(writer.environment(), encoding="utf-8")
    click.echo(f"wrote {output} and {example}")
    for line in writer.to_edit:
        warn(f"{output}: {line} has an invented value; change it")
    click.echo(f"next: copy {example} to {example.with_name('.env')}, fill it in, then: marketfeed check {output}")
    click.echo(f"without credentials: marketfeed run {output} --sandbox")


def _first_vendor(plugins: Plugins) -> str:
    names = sorted(plugins.vendors, key=lambda name: (name != "kite", name))
    return names[0] if names else plugins.vendor("kite").info.name  # the error says what to install


def _usual_sinks(plugins: Plugins) -> list[str]:
    """Who installs a sink wants ticks in it."""
    from marketfeed.plugins.discovery import CORE

    return [
        "stdout",
        "jsonl",
        *(name for name in sorted(plugins.sinks) if plugins.owner("sink", name).distribution != CORE),
    ]


class _Writer:
    """Collects the lines of both files. Variables are noted as they are used."""

    def __init__(self, plugins: Plugins, vendor: str, sinks: Iterable[str]) -> None:
        self.vendor = plugins.vendor(vendor).info
        self.sinks = {name: plugins.sink(name) for name in dict.fromkeys(sinks)}
        self.variables: dict[str, tuple[str, str]] = {}  # name -> (explanation, example; "" = must be given)
        self.to_edit: list[str] = []

    def toml(self) -> str:
        """The configuration file."""
        lines = [
            "# What marketfeed reads from where, and where it goes. `marketfeed check` finds mistakes.",
            '# { env = "X", default = ... } takes the environment variable X, or X from a file .env beside this one.',
            "# Lines that begin with # show a default. Paths are relative to the working directory.",
            "",
            *self._feed(),
            *self._vendor(),
        ]
        for number, (name, cls) in enumerate(self.sinks.items()):
            lines += self._sink(name, cls, first=number == 0)
        return "\n".join([*lines, *self._tables(), *self._metrics(), *self._log()]) + "\n"

    def environment(self) -> str:
        """The ``.env.example`` that belongs to it."""
        lines = ["# Copy to .env beside the configuration and fill in. The real environment wins over .env."]
        for name, (text, example) in self.variables.items():
            lines += ["", *_comment(text), f"# {name}={example}" if example else f"{name}="]
        return "\n".join(lines) + "\n"

    def _feed(self) -> Iterator[str]:
        from marketfeed.config import FeedConfig

        rest = {"vendor", "name", "instruments", "sinks", "mode"}
        self.variables["INSTRUMENTS"] = ("Instruments, comma separated", ",".join(_INSTRUMENTS))
        yield "[feeds.main]"
        yield f"vendor = {_value(self.vendor.name)}"
        yield "# EXCHANGE:SYMBOL, or a glob such as NFO:NIFTY*FUT"
        yield f'instruments = {{ env = "INSTRUMENTS", default = {_value(_INSTRUMENTS)} }}'
        yield f"mode = {_value(max(self.vendor.modes))}{' ' * 18}# ltp, quote or full"
        yield f"sinks = {_value(list(self.sinks))}"
        yield from self._defaults(FeedConfig, rest)

    def _vendor(self) -> Iterator[str]:
        from marketfeed.config.options import docs_of, options_of

        yield from ("", f"[vendors.{self.vendor.name}]{' ' * 4}# {self.vendor.title}")
        docs = docs_of(self.vendor.settings)
        options = options_of(self.vendor.settings).values()
        for option in sorted(options, key=lambda one: not (one.required or one.env)):
            yield from self._option(option, docs.get(option.field.name, ""), self.vendor.name)

    def _sink(self, name: str, cls: type, first: bool) -> Iterator[str]:
        from marketfeed.config import SinkConfig
        from marketfeed.config.options import docs_of, options_of

        yield from ("", f"[sinks.{name}]", *_comment((cls.__doc__ or "").strip().split("\n\n")[0]))
        docs = docs_of(cls)
        options = options_of(cls)
        for option in sorted(options.values(), key=lambda one: not (one.required or one.env)):
            yield from self._option(option, docs.get(option.field.name, ""), name)
        self.variables["BATCH_SIZE"] = ("Most rows in one write to a sink", "4096")
        self.variables["BATCH_TIMEOUT"] = ("Seconds to wait for a fuller batch", "0.05")
        yield "# Most rows in one write, and the seconds to wait for that many"
        yield 'batch_rows = { env = "BATCH_SIZE", default = 4096 }'
        yield 'batch_timeout_s = { env = "BATCH_TIMEOUT", default = 0.05 }'
        if not first:  # once is enough
            return
        yield "# The rest holds for every sink"
        yield from self._defaults(SinkConfig, {"name", "type", "cls", "options", "batch_rows", "batch_timeout_s"})

    def _tables(self) -> Iterator[str]:
        """The tables of which the defaults do: nothing in them is active."""
        from marketfeed import config

        yield from ("", "[journal]")
        yield from self._defaults(config.JournalConfig, set())
        yield from (
            "",
            "[validation]",
            "# What to do with a row that looks wrong: keep (flag only), drop, or dead-letter",
        )
        yield from self._defaults(config.ValidationConfig, set())
        yield from ("", "[dead_letters]")
        yield from self._defaults(config.DeadLettersConfig, set())
        yield from ("", "[capture]", "# Raw frames of each connection, to be played again with `marketfeed replay`")
        yield from self._defaults(config.CaptureConfig, set())

    def _metrics(self) -> Iterator[str]:
        from marketfeed.config import MetricsConfig

        self.variables["INGESTION_PORT"] = ("Port of the metrics page", "3001")
        yield from ("", "[metrics]", "# TCP port of the page that Prometheus reads; false switches it off")
        yield 'port = { env = "INGESTION_PORT", default = 3001 }'
        yield from self._defaults(MetricsConfig, {"port"})

    def _log(self) -> Iterator[str]:
        from marketfeed.config import LoggingConfig

        self.variables["LOG_LEVEL"] = ("debug, info, warning or error", "info")
        yield from ("", "[log]", 'level = { env = "LOG_LEVEL", default = "info" }')
        yield from self._defaults(LoggingConfig, {"level"})

    def _option(self, option: Option, doc: str, table: str) -> Iterator[str]:
        """One option of a plugin: active when it is required or has a variable, else a comment."""
        yield from _comment(doc)
        if option.env:
            example = "" if option.required or option.secret or option.default in (None, "") else str(option.default)
            self.variables.setdefault(option.env, (doc or option.name, example))
            default = "" if option.required else f", default = {_default(option)}"
            yield f'{option.name} = {{ env = "{option.env}"{default} }}'
        elif option.required:
            value, invented = _invented(option, table)
            if invented:
                self.to_edit.append(f"{table}.{option.name}")
            yield f"{option.name} = {_value(value)}"
        else:
            yield f"# {option.name} = {_default(option)}"

    def _defaults(self, cls: type, skip: set[str]) -> Iterator[str]:
        from marketfeed.config.options import docs_of, options_of

        docs = docs_of(cls)
        for option in options_of(cls).values():
            if option.name not in skip:
                yield from _comment(docs.get(option.name, ""))
                yield f"# {option.name} = {_default(option)}"


def _default(option: Option) -> str:
    """The default in TOML; nothing is an empty text, and a size is one for people."""
    default = "" if option.default is None else option.default
    if isinstance(default, int) and _takes_sizes(option):
        default = f"{default / 1e9:g}GB" if default >= 1e9 else f"{default / 1e6:g}MB"
    return _value(default)


def _takes_sizes(option: Option) -> bool:
    converter: Any = option.field.converter
    try:
        return converter is not None and converter("1GB") == 10**9
    except (TypeError, ValueError):
        return False


def _invented(option: Option, table: str) -> tuple[Any, bool]:
    """A value for a required option, and whether somebody should look at it."""
    if option.type is Path:
        return f"data/{{kind}}-{{feed}}.{table}", False
    return {str: "CHANGE-ME", int: 1, float: 1.0, bool: False}.get(option.type, []), True


def _comment(text: str) -> list[str]:
    """Text as comment lines."""
    import textwrap

    plain = " ".join(text.replace("``", "`").split())
    return [f"# {line}" for line in textwrap.wrap(plain, _WIDTH, break_long_words=False)]


def _value(value: Any) -> str:
    """A value in TOML. Every JSON string is a TOML string as long as non-ASCII is escaped."""
    import json

    if hasattr(value, "word"):  # Mode
        value = value.word
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_value(key)} = {_value(one)}' for key, one in value.items())}}}"
    return json.dumps(str(value))
