"""``marketfeed replay``: captured frames once more, through the real parser into any sinks."""

from __future__ import annotations

import signal
import threading
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from marketfeed.framelog import CaptureFile

__all__ = ["command"]


def _speed(value: Any) -> float:
    try:
        speed = float("inf") if value == "max" else float(value)
    except ValueError:
        speed = -1.0
    if not speed > 0:
        raise click.BadParameter(f"{value!r} is neither a number above 0 nor max")
    return speed


def _option(text: str) -> tuple[str, str, Any]:
    """``SINK.OPTION=VALUE``; the value as TOML where it is some, else as text."""
    place, equals, value = text.partition("=")
    sink, dot, name = place.partition(".")
    if not (equals and dot and sink and name):
        raise click.BadParameter(f"{text!r} is not SINK.OPTION=VALUE")
    try:
        return sink, name, tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return sink, name, value


@click.command(name="replay", short_help="Play captured frames again.")
@click.argument("places", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="FILE...")
@click.option(
    "--speed",
    type=_speed,
    metavar="FACTOR|max",
    default="max",
    show_default=True,
    help="Of the recorded pace: a factor, or max.",
)
@click.option("--sink", "sinks", multiple=True, metavar="NAME", help="Where ticks go; stdout if none is named.")
@click.option("--set", "options", multiple=True, type=_option, metavar="SINK.OPTION=VALUE", help="An option of a sink.")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A feed.toml: its sinks (those of its feed unless --sink is given) and its validation.",
)
@click.option("--serve", is_flag=True, help="Be a sandbox broker that sends the frames, instead of parsing them.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of --serve; 0 takes a free one.")
@click.option("--info", is_flag=True, help="Tell what the files hold, one JSON document each, and play nothing.")
def command(
    places: Sequence[Path],
    speed: float,
    sinks: Sequence[str],
    options: Sequence[tuple[str, str, Any]],
    config: Path | None,
    serve: bool,
    port: int,
    info: bool,
) -> None:
    """Play capture files, or folders of them, once more.

    Frames go through the vendor's parser, validation and a journal in memory into sinks; nothing is
    connected, and received times stay as captured: every replay gives the same output.
    """
    from marketfeed.capture import open_captures

    if info:
        from marketfeed.cli._output import print_json

        for file in open_captures(places):
            print_json(_described(file))
    elif serve:
        _serve(places, speed, port)
    else:
        _play(places, speed, sinks, options, config)


def _play(
    places: Sequence[Path],
    speed: float,
    sinks: Sequence[str],
    options: Sequence[tuple[str, str, Any]],
    config: Path | None,
) -> None:
    from marketfeed.capture import Replay, open_captures
    from marketfeed.engine import logs
    from marketfeed.errors import MarketFeedError

    logs.configure("warning")
    tables, environ = _read(config)
    feed = open_captures(places)[0].header.feed
    names = list(sinks) or _sinks_of(config, tables, environ, feed) or ["stdout"]
    tables = {"sinks": {**tables.get("sinks", {})}, "validation": tables.get("validation")}
    for sink, name, value in options:
        if sink not in names:
            raise click.BadParameter(f"--set {sink}.{name}: no such sink in this replay ({', '.join(names)})")
        tables["sinks"][sink] = {**tables["sinks"].get(sink, {}), name: value}
    replay = Replay(places, sinks=names, speed=speed, config=tables, environ=environ)
    before = signal.signal(signal.SIGTERM, lambda *_: replay.stop())
    try:
        summary = replay.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    for line in [*summary.lines(), *_missing(replay.files)]:
        click.echo(line, err=True)
    if replay.error is not None:
        raise replay.error
    failed = [sink for sink in summary.sinks if sink.error]
    if failed:
        raise MarketFeedError(f"sink {failed[0].name!r} did not get everything: {failed[0].error}")


def _read(config: Path | None) -> tuple[dict[str, Any], Mapping[str, str] | None]:
    """The raw tables of a configuration file, and the environment with the ``.env`` beside it."""
    import os

    from marketfeed.config.file import read_document, read_environ

    if config is None:
        return {}, None
    return dict(read_document(config).values), read_environ(config.parent, os.environ)


def _sinks_of(
    config: Path | None, tables: Mapping[str, Any], environ: Mapping[str, str] | None, feed: str
) -> list[str]:
    """The sinks of the feed of that name in a configuration, or of its only one."""
    from marketfeed import config as configuration

    if config is None or not tables.get("feeds"):
        return []
    found = configuration.load(config, environ=environ, placeholder="not used").feeds  # replay logs in nowhere
    if feed not in found and len(found) > 1:
        raise click.BadParameter(f"--config has no feed {feed!r}, which was captured; say which --sink to use")
    chosen = found[feed] if feed in found else next(iter(found.values()))
    return list(chosen.sinks)


def _missing(files: Sequence[CaptureFile]) -> list[str]:
    return [
        f"warning: {file.path}: {one.size:,} bytes at {one.offset:,} passed over ({one.reason})"
        for file in files
        for one in file.damage
    ]


def _serve(places: Sequence[Path], speed: float, port: int) -> None:
    from marketfeed.capture import open_captures
    from marketfeed.sandbox import Sandbox

    if len(places) > 1:
        raise click.BadParameter("--serve takes one file or folder")
    vendor = open_captures(places)[0].header.vendor
    try:
        box = Sandbox(vendor, port=port, replay=places[0], speed=speed, rate_limits=False).start()
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    done = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: done.set())
    try:
        click.echo(f"{vendor} sandbox on {box.url} with {len(box.instruments)} instruments; stop it with Ctrl+C")
        for key, value in box.settings().items():
            click.echo(f"  {key} = {value!r}")
        while not done.wait(0.5):  # on Windows an endless wait would not see Ctrl+C
            pass
    finally:
        box.stop()


def _described(file: CaptureFile) -> dict[str, Any]:
    import attrs

    from marketfeed.clock import ist_text

    frames = size = first_ns = last_ns = 0
    sockets = set()
    for frame in file:
        first_ns = first_ns or frame.received_ns
        last_ns = frame.received_ns
        frames += 1
        size += len(frame.data)
        sockets.add(frame.socket)
    return {
        "file": str(file.path),
        **attrs.asdict(file.header),
        "frames": frames,
        "bytes": size,
        "sockets": len(sockets),
        "first": ist_text(first_ns) if frames else None,
        "last": ist_text(last_ns) if frames else None,
        "instruments": [one.key for one in file.instruments().values()],
        "damage": [one._asdict() for one in file.damage],
    }
