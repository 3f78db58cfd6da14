"""``marketfeed new``: the beginning of a plugin, a project that can be installed and tested as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click

__all__ = ["command"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PLACEHOLDERS: Final = ("mysink", "myvendor")
_SKIPPED: Final = frozenset({"__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", "dist", "build"})


@click.group(short_help="Write the beginning of a plugin: a sink or a broker of your own.")
def command() -> None:
    """Write a project to start a plugin from: entry point, options, tests, README."""


@command.command()
@click.argument("name")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to make the project in; by default marketfeed-NAME here.",
)
def sink(name: str, output: Path | None) -> None:
    """Write a project marketfeed-NAME with a sink that works, and the tests that every sink must pass."""
    _check(name, "archive")
    _write("sink", name, output)
    click.echo("the contract of a sink: docs/tutorial/sink.md", err=True)


@command.command()
@click.argument("name")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to make the project in; by default marketfeed-NAME here.",
)
def vendor(name: str, output: Path | None) -> None:
    """Write a project marketfeed-NAME with a small broker that works, its sandbox, and the tests of every broker."""
    _check(name, "mybroker")
    _write("vendor", name, output)
    click.echo("what each hook must do: docs/reference/hooks.md", err=True)


def _write(kind: str, name: str, output: Path | None) -> None:
    folder = output or Path(f"marketfeed-{name}")
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(f"{folder} is there and not empty; choose another folder with --output")
    for file in _copy(_template(kind), folder, name):
        click.echo(f"wrote {file}")
    click.echo(f"next: pip install -e '{folder}[test]' && pytest {folder}", err=True)


def _check(name: str, example: str) -> None:
    if not _NAME.fullmatch(name):
        raise click.BadParameter(
            f"{name!r} cannot be a plugin's name: lower-case letters, digits and single hyphens, such as {example}",
            param_hint="NAME",
        )


def _template(kind: str) -> Path:
    from marketfeed._shipped import shipped

    try:
        return shipped(f"_templates/{kind}")
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error


def _copy(template: Path, folder: Path, name: str) -> list[Path]:
    """The template's files with the name put in; what was written, in order."""
    written = []
    for source in sorted(template.rglob("*")):
        place = source.relative_to(template)
        if source.is_dir() or _SKIPPED & set(place.parts) or source.suffix == ".pyc":
            continue
        target = folder / _named(str(place), name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_named(source.read_text(encoding="utf-8"), name), encoding="utf-8")
        written.append(target)
    return written


def _named(text: str, name: str) -> str:
    """``text`` with the placeholder replaced: in modules, in classes, and anywhere else."""
    module = name.replace("-", "_")
    for placeholder in _PLACEHOLDERS:
        text = re.sub(rf"(?<=[a-z]_){placeholder}", module, text)  # marketfeed_mysink, test_mysink
        text = text.replace(placeholder.title(), "".join(part.title() for part in name.split("-")))
        text = text.replace(placeholder.upper(), module.upper())  # variables
        text = text.replace(placeholder, name)
    return text
