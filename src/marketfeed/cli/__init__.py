"""The command line. Each command is a module of this package with ``command: click.Command``, loaded on use.

Exit codes: 0 done, 1 an error, 2 a wrong configuration or command line, 3 the broker refuses the
credentials, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import pkgutil
import sys
import threading
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import IO, Any

import click

from marketfeed.errors import AuthError, ConfigError, MarketFeedError

__all__ = ["main"]

_ORDER = ("run", "check", "init", "login", "plugins", "sandbox", "status", "tail", "replay", "sink", "journal")
_EXIT_CODES = ((ConfigError, 2), (AuthError, 3), (MarketFeedError, 1))
_INTERRUPTED = 130


class _Failure(click.ClickException):
    """An error that the user is told about in one message."""

    def __init__(self, error: MarketFeedError, debug: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.debug = debug
        self.code = next(code for kind, code in _EXIT_CODES if isinstance(error, kind))

    def show(self, file: IO[Any] | None = None) -> None:
        if self.debug:
            traceback.print_exception(self.error, file=file or sys.stderr)
        else:
            click.echo(f"{click.style('error:', fg='red')} {self.message}", err=file is None, file=file)


class _Commands(click.Group):
    """Commands are modules: listed by name, imported when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = {one.name.replace("_", "-") for one in pkgutil.iter_modules(__path__) if not one.name.startswith("_")}
        return [name for name in _ORDER if name in found] + sorted(found.difference(_ORDER))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name.replace('-', '_')}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MarketFeedError as error:
            raise _Failure(error, ctx.params["debug"]) from error
        except OSError as error:  # a folder that is not there, no permission, a full disk
            if isinstance(error, BrokenPipeError):
                raise
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise _Failure(MarketFeedError(what), ctx.params["debug"]) from error

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        """As in click, with the exit codes above."""
        run: Callable[..., Any] = super().main
        if not standalone_mode:
            return run(*args, standalone_mode=False, **options)
        try:
            result = run(*args, standalone_mode=False, **options)
        except click.ClickException as error:
            error.show()
            sys.exit(error.code if isinstance(error, _Failure) else error.exit_code)
        except click.Abort:
            click.echo("interrupted", err=True)
            if any("-sink-" in thread.name for thread in threading.enumerate()):
                # A sink stuck in a write holds the lock of its file, and an orderly end would abort on it.
                os._exit(_INTERRUPTED)
            sys.exit(_INTERRUPTED)
        sys.exit(result if isinstance(result, int) else 0)


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"marketfeed {version('marketfeed')}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def main(debug: bool) -> None:
    """Broker market data as one trusted stream.

    Start with `marketfeed init`, which writes a feed.toml, then `marketfeed run feed.toml --sandbox`.
    """
