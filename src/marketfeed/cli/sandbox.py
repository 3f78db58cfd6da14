"""``marketfeed sandbox``: play a broker on this machine."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from marketfeed.brokers import Credentials

if TYPE_CHECKING:
    from marketfeed.sandbox import Sandbox

__all__ = ["command"]

_ACCOUNT = Credentials()


def _speed(value: Any) -> float:
    try:
        return float("inf") if value == "max" else float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor max") from None


def _instruments(value: Any) -> int | Path:
    if str(value).isdecimal():
        return int(value)
    if not Path(value).is_file():
        raise click.BadParameter(f"{value!r} is neither a number nor a file")
    return Path(value)


@click.command(name="sandbox", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("vendor")
@click.pass_context
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Loopback port; 0 takes a free one.")
@click.option("--port-file", type=click.Path(path_type=Path), help="Write port, clock and settings here, as JSON.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same prices.")
@click.option(
    "--instruments",
    type=_instruments,
    metavar="NUMBER|FILE",
    help="How many, or a file of EXCHANGE:SYMBOL[,price] lines.",
)
@click.option("--ticks-per-second", type=float, default=100.0, show_default=True, help="Over all instruments.")
@click.option("--step-s", type=float, default=0.02, show_default=True, help="Seconds of ticks in one frame.")
@click.option("--packets-per-frame", type=click.IntRange(1, 65535), help="Most packets in one frame.")
@click.option("--heartbeat-s", type=float, default=1.0, show_default=True, help="Idle seconds before a heartbeat.")
@click.option("--start", help="India time at which its clock starts; default: 10:00 on the latest weekday.")
@click.option("--replay", type=click.Path(exists=True, path_type=Path), help="CSV file of ticks, or a capture.")
@click.option(
    "--speed",
    type=_speed,
    metavar="FACTOR|max",
    default=1.0,
    show_default=True,
    help="Of the replay: a factor, or max.",
)
@click.option("--replay-order", type=click.Choice(["file", "time"]), default="file", show_default=True)
@click.option(
    "--replay-start",
    type=click.Choice(["subscribed", "now", "command"]),
    default="subscribed",
    show_default=True,
    help="When a replay begins; command = POST /sandbox/replay.",
)
@click.option("--rate-limits/--no-rate-limits", default=True, help="Without limits any number of requests is answered.")
@click.option(
    "--connection-limit", type=click.IntRange(0), help="Most WebSockets; 0 = any number. Default: the vendor's."
)
@click.option(
    "--log", "log_file", type=click.Path(path_type=Path), help="Write requests and ticks sent, as JSON lines."
)
@click.option("--log-kinds", default="requests,ticks,events", show_default=True, help="What --log writes.")
@click.option("--fault", multiple=True, metavar="KIND@TIME", help='A fault, such as "mute@10s for 7s"; repeatable.')
@click.option("--faults", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File of faults.")
@click.option("--chaos", type=int, metavar="SEED", help="Faults drawn by lot; the same seed draws the same.")
@click.option("--tls", type=click.Choice(["good", "self-signed", "wrong-host", "expired"]), help="Serve TLS.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Write the authority of its certificates here.")
@click.option("--user-id", default=_ACCOUNT.user_id, show_default=True)
@click.option("--password", default=_ACCOUNT.password, show_default=True)
@click.option("--totp-secret", default=_ACCOUNT.totp_secret, show_default=True)
@click.option("--api-key", default=_ACCOUNT.api_key, show_default=True)
@click.option("--api-secret", default=_ACCOUNT.api_secret, show_default=True)
@click.option("--access-token", help="A token that is accepted without a login.")
@click.option("--redirect-url", default=_ACCOUNT.redirect_url, show_default=True, help="Where the login page leads.")
@click.option("--until-stdin-closes", is_flag=True, help="Stop when standard input ends, as with the parent's death.")
def command(
    context: click.Context,
    /,
    vendor: str,
    port: int,
    port_file: Path | None,
    log_file: Path | None,
    log_kinds: str,
    until_stdin_closes: bool,
    **options: Any,
) -> None:
    """Play the broker VENDOR on this machine: login, REST and WebSocket on one loopback port.

    Prices are invented from the seed, or replayed from a file. Nothing here reaches a real broker.
    A vendor may have options of its own, such as --dialect a of mstock.
    """
    from marketfeed.sandbox import Sandbox

    kinds = [word.strip() for word in log_kinds.split(",") if word.strip()]
    try:
        own = _vendor_options(context.args)
        box = Sandbox(vendor, port=port, log_file=log_file, log_kinds=kinds, vendor_options=own, **options).start()
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    try:
        _announce(box, port_file)
        _wait(until_stdin_closes)
    finally:
        box.stop()


def _vendor_options(words: list[str]) -> dict[str, str]:
    """``--dialect a`` and ``--dialect=a`` as options of :class:`Sandbox`, which refuses those that nobody knows."""
    found = {}
    rest = list(words)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--") or not (equals or rest):
            raise click.UsageError(f"{name!r} is not understood")
        found[name[2:].replace("-", "_")] = value if equals else rest.pop(0)
    return found


def _announce(box: Sandbox, port_file: Path | None) -> None:
    click.echo(f"{box.vendor} sandbox on {box.url} with {len(box.instruments)} instruments; stop it with Ctrl+C")
    if port_file is None:
        return
    facts = {
        "port": box.port,
        "pid": os.getpid(),
        "url": box.url,
        "clock_offset_ns": box.clock_offset_ns,
        "settings": box.settings(),
    }
    part = port_file.with_name(port_file.name + ".part")
    part.write_text(json.dumps(facts), encoding="utf-8")
    part.replace(port_file)  # whoever waits for the file finds it whole


def _wait(until_stdin_closes: bool) -> None:
    """Return at Ctrl+C, SIGTERM, or the end of standard input."""
    done = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: done.set())
    if until_stdin_closes:

        def watch() -> None:
            while os.read(0, 4096):  # sys.stdin would be locked when the interpreter ends
                pass
            done.set()

        threading.Thread(target=watch, name="stdin", daemon=True).start()
    while not done.wait(0.5):  # on Windows an endless wait would not see Ctrl+C
        pass
