"""What the command line's log shows, and what it never shows."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from marketfeed.engine.logs import configure, get_log


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """The logger as it was before."""
    root = logging.getLogger("marketfeed")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before[0], before[1], before[2]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_secret_is_hidden_in_our_records_and_in_tracebacks_of_plugins(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("info", form)
    get_log(feed="main").warning("refused", url="https://x/?access_token=canary-1", api_secret="canary-2")
    try:
        raise ValueError("GET /?api_key=canary-3&access_token=canary-4")
    except ValueError:
        logging.getLogger("marketfeed.plugins").exception("hook failed, password=canary-5")
    shown = capsys.readouterr().err
    assert "canary" not in shown
    assert "ValueError" in shown
    assert "hook failed" in shown


def test_json_lines_of_both_kinds_have_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    get_log(feed="main").info("connected", connection=1)
    logging.getLogger("marketfeed.journal").warning("cursor %r is damaged", "a")
    ours, foreign = map(json.loads, capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["level"], ours["feed"], ours["connection"]) == ("connected", "info", "main", 1)
    assert (foreign["event"], foreign["level"]) == ("cursor 'a' is damaged", "warning")
    assert ours["time"]
    assert foreign["time"]


def test_a_secret_without_a_name_is_hidden_where_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json", ["canary-1"])
    session = ["canary-2"]
    get_log(lambda: session, feed="main").error("sink failed", error="no user canary-2 at the server")
    session[0] = "canary-3"
    try:
        raise ConnectionError("cannot log in as 'canary-1'")
    except ConnectionError:
        logging.getLogger("marketfeed.sinks").exception("what now, %s?", "canary-1")
    shown = capsys.readouterr().err
    assert "canary" not in shown
    assert "cannot log in as" in shown
