"""The reference pages name what the code has, and links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import click
import pytest

from marketfeed import dtypes, hookspecs
from marketfeed.cli import main
from marketfeed.config.options import options_of
from marketfeed.contract import Sink
from marketfeed.sinks import marketfeed_sinks

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("plugins/marketfeed-*/README.md")),
]
SINKS: dict[str, type[Sink]] = dict(marketfeed_sinks())


def read(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def headings(text: str) -> list[str]:
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+)$", prose, re.MULTILINE)


def section(text: str, heading: str) -> str:
    """From a heading to the next one of its level."""
    level = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert level, f"no heading {heading!r}"
    return re.split(rf"^{level[1]} ", text[level.end() :], maxsplit=1, flags=re.MULTILINE)[0]


# --- hooks and events -----------------------------------------------------------------------------


def test_every_hook_has_a_heading_and_every_heading_a_hook() -> None:
    hooks = {f"`{name}`" for name in vars(hookspecs) if name.startswith("marketfeed_")}
    assert {one for one in headings(read("hooks.md")) if "marketfeed_" in one} == hooks


def test_every_event_is_listed_and_every_listed_one_happens() -> None:
    sources = [*ROOT.glob("src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    happen = set(re.findall(r'(?:\bemit|events\.put|\bEmit)\("(\w+)"', code))
    tables = re.findall(r"^_EVENTS.*?= \{(.*?)\}", code, re.DOTALL | re.MULTILINE)
    happen |= set(re.findall(r': "(\w+)"', "".join(tables)))
    rows = re.findall(r"^\| (`.+?) \|", section(read("hooks.md"), "Events"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == happen


# --- commands -------------------------------------------------------------------------------------


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, f"{path} {name}")


COMMANDS = dict(walk(main, "marketfeed"))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_on_the_page(path: str) -> None:
    page = read("cli.md")
    command = COMMANDS[path]
    found = [one for one in headings(page) if one.startswith(f"`{path}")]
    if path == "marketfeed":
        text = page
    elif found:
        text = section(page, found[0])
    else:  # a command of a group: a row of the group's table
        text = section(page, f"`{path.rpartition(' ')[0]}`")
        assert f"`{path} " in text
    for option in command.params:
        for name in (*option.opts, *option.secondary_opts) if isinstance(option, click.Option) else ():
            assert re.search(rf"`{name}[` ]", text), f"{path} {name}"


def test_no_command_on_the_page_is_invented() -> None:
    named = re.findall(r"^## `(marketfeed \w+)", read("cli.md"), re.MULTILINE)
    assert sorted(named) == sorted(path for path in COMMANDS if path.count(" ") == 1)


# --- data, sinks ----------------------------------------------------------------------------------


def test_every_field_of_a_tick_and_every_flag_is_on_the_page() -> None:
    page = read("data.md")
    names = [*(dtypes.TICK.names or ()), *(dtypes.CANDLE.names or ())]
    names += [str(flag.name) for flag in (*dtypes.Flag, *dtypes.CandleFlag)]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_bits_on_the_page_are_those_of_the_code() -> None:
    text = section(read("data.md"), "Flags")
    bits = {name: int(bit) for bit, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)}
    bits |= {name: int(bit) for name, bit in re.findall(r"`(\w+)` \((\d+)\)", text)}
    assert bits == {str(flag.name): flag.bit_length() - 1 for flag in dtypes.Flag}


def test_the_group_of_a_field_is_the_one_on_the_page() -> None:
    for line in re.findall(r"^\| (`.+?) \| \S+(?: x5)? \| `(\w+)` \|", section(read("data.md"), "Ticks"), re.MULTILINE):
        assert set(re.findall(r"`(\w+)`", line[0])) <= set(dtypes.FLAG_GROUPS[dtypes.Flag[line[1]]])


@pytest.mark.parametrize("name", SINKS)
def test_every_option_of_a_built_in_sink_is_on_the_page(name: str) -> None:
    text = section(read("sinks.md"), f"`{name}`")
    listed = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert listed == set(options_of(SINKS[name]))
    assert attrs.has(SINKS[name])


# --- links ----------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, fragment = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), f"{page.name}: {target}"
        if fragment:
            assert fragment in map(anchor, headings(file.read_text(encoding="utf-8"))), f"{page.name}: {target}"


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    links = re.findall(r"\]\(([^)#]+)", index.read_text(encoding="utf-8"))
    reached = {(index.parent / link).resolve() for link in links}
    assert {page for page in ROOT.glob("docs/**/*.md") if page != index} <= reached


def test_files_that_pages_name_exist() -> None:
    """Paths of the repository in backquotes, as on the architecture page."""
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    homes = (ROOT, ROOT / "src" / "marketfeed", ROOT / "src" / "marketfeed" / "engine")
    names = re.findall(r"`((?:[\w-]+/)*[\w-]+(?:\.\w+|/))`", page)
    # What a vendor plugin or a page of the sort is called, not one place:
    general = {"__init__.py", "settings.py", "auth.py", "stream.py", "parser.py", "candles.py", "sandbox.py"}
    general |= {
        "instruments.py",
        "cli/NAME.py",
        "Sink.position",
        "Stream.received",
        "Stream.changed",
        "TokenMap.add",
        "dtypes.Flag",
    }
    missing = [name for name in names if name not in general and not any((home / name).exists() for home in homes)]
    assert missing == []
