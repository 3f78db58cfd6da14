"""The file as text: on which line a key stands, and what a size means."""

from __future__ import annotations

import tomllib

import pytest

from marketfeed.config.file import key_lines
from marketfeed.config.options import parse_bytes

NASTY = '''\
# [not.a.section] x = 1
title = "a # b [c]"          # comment
"quoted key" = 1
dotted . key = 2
long = """
[feeds.fake]
key = "no"
"""
raw = \'\'\'x = [
\'\'\'
list = [
    "NSE:A", # ] not the end
    "]",
    { inner = 1 },
]
[ feeds . main ]
vendor = "kite"
instruments = ["NSE:A",
  "NSE:B"]
[sinks."odd.name"]
path = "x"
[[array]]
first = 1
inline = { a = 1, b = [1, 2] }
last = 1
'''


def test_every_key_is_found_on_its_line_and_nothing_else() -> None:
    tomllib.loads(NASTY)
    assert key_lines(NASTY) == {
        ("title",): 2,
        ("quoted key",): 3,
        ("dotted", "key"): 4,
        ("long",): 5,
        ("raw",): 9,
        ("list",): 11,
        ("feeds", "main"): 16,
        ("feeds", "main", "vendor"): 17,
        ("feeds", "main", "instruments"): 18,
        ("sinks", "odd.name"): 20,
        ("sinks", "odd.name", "path"): 21,
        ("array",): 22,
        ("array", "first"): 23,
        ("array", "inline"): 24,
        ("array", "last"): 25,
    }


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0), (4096, 4096), ("4096", 4096), ("4GB", 4 * 10**9), ("4 gb", 4 * 10**9), ("4G", 4 * 10**9),
        ("128MiB", 128 * 2**20), ("1.5kB", 1500), ("2TB", 2 * 10**12), ("1KiB", 1024), ("7B", 7),
    ],
)  # fmt: skip
def test_a_size_is_decimal_or_binary(text: int | str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "4 apples", "-1", "4GBB", "1e9", -1, True, 1.5, None])
def test_anything_else_is_not_a_size(text: object) -> None:
    with pytest.raises(ValueError, match='must be a size such as "4GB" or "128MiB"'):
        parse_bytes(text)  # type: ignore[arg-type]
