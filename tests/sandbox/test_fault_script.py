"""Faults as text, and a schedule of hours in virtual time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from marketfeed.clock import ManualClock, to_ns
from marketfeed.sandbox import Sandbox
from marketfeed.sandbox.faults import Director, described, parse, parse_file, parse_now, random_plan
from marketfeed.sandbox.faults.base import Stage
from marketfeed.sandbox.faults.kinds import shown
from marketfeed.sandbox.log import EventLog

COMMON = {"seconds", "connection", "until"}
START = to_ns("2026-11-20 10:00:00")


@pytest.mark.parametrize(
    ("line", "at_s", "live", "kind", "parameters"),
    [
        ("drop@5s", 5.0, False, "drop", {}),
        ("drop@500ms how=rst", 0.5, False, "drop", {"how": "rst"}),
        ("mute@10s for 7s", 10.0, False, "mute", {"seconds": 7.0}),
        ("mute@2m for 1h connection=2", 120.0, False, "mute", {"seconds": 3600.0, "connection": 2}),
        ("close@live+1.5s code=1012 reason='going down'", 1.5, True, "close", {"code": 1012, "reason": "going down"}),
        ("refuse status=429 attempts=3", 0.0, False, "refuse", {"status": 429, "attempts": 3}),
        ("expire@3 cut=yes", 3.0, False, "expire", {"cut": True}),
        ("silent instruments='NSE:NIFTY 50,NSE:INFY'", 0.0, False, "silent", {"instruments": "NSE:NIFTY 50,NSE:INFY"}),
    ],
)
def test_a_line_says_what_when_and_how(
    line: str, at_s: float, live: bool, kind: str, parameters: dict[str, Any]
) -> None:
    planned = parse(line)
    assert (planned.at_s, planned.live, planned.fault.kind) == (at_s, live, kind)
    assert shown(planned.fault) == parameters


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "an empty fault; write KIND"),
        ("wobble@5s", "unknown fault 'wobble'; choose from drop, close, half-open"),
        ("drop@soon", "fault 'drop@soon': 'soon' is not a time; write 5s, 500ms, 2m or 1h"),
        ("mute@1s for ever", "'ever' is not a time"),
        ("mute@1s for", "'' is not a time; write 5s"),
        ("mute@1s seven", "'seven' is not understood; write KIND"),
        ("mute@1s loud=yes", "fault 'mute' has no parameter loud; choose from seconds, connection, until"),
        ("drop@1s for 3s", "fault 'drop' has no parameter seconds; choose from connection, how"),
        ("drop@1s how=softly", "fault 'drop': how = 'softly' must be one of fin, rst"),
        ("close@1s code=x", "fault 'close': code = 'x' is not a number"),
        ("refuse status=-3", "fault 'refuse': status = '-3' must be a whole number, 0 or more"),
        ("http-short keep=2", "fault 'http-short': keep = '2' must lie between 0 and 1"),
        ("say text='hello", "No closing quotation"),
    ],
)
def test_a_line_that_is_not_understood_is_explained_in_one_sentence(line: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(line)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_fault_for_now_has_no_time() -> None:
    assert parse_now("mute for 7s").seconds == 7
    with pytest.raises(ValueError, match="it starts at once"):
        parse_now("mute@3s")


def test_a_file_has_one_fault_a_line_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "faults.txt"
    path.write_text("# the morning\n\ndrop@5s   # first\nmute@10s for 7s\n")
    assert [one.text for one in parse_file(path)] == ["drop@5s", "mute@10s for 7s"]
    path.write_text("drop@5s\nwobble\n")
    with pytest.raises(ValueError, match=r"^faults\.txt, line 2: unknown fault 'wobble'"):
        parse_file(path)


def test_a_sandbox_does_not_start_with_a_wrong_schedule(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown fault 'wobble'"):
        Sandbox("kite", fault="wobble@5s")
    with pytest.raises(OSError):
        Sandbox("kite", faults=tmp_path / "missing.txt")


# --- by lot -----------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_faults() -> None:
    def drawn(seed: int) -> list[str]:
        return [one.text for one in random_plan(seed, hours=2)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_a_schedule_by_lot_leaves_the_line_time_to_recover() -> None:
    plan = random_plan(3, hours=24)
    ends = [one.at_s + (one.fault.seconds or 0.0) for one in plan]
    gaps = [after.at_s - end for end, after in zip(ends, plan[1:], strict=False)]
    assert len(plan) > 2000
    assert min(gaps) > 4.8
    assert len({one.fault.kind for one in plan}) > 20
    assert all(one.live for one in plan)


def test_every_kind_is_described_with_its_parameters() -> None:
    for one in described():
        assert one["means"].endswith("."), one["kind"]
        assert all(parameter["means"] for parameter in one["parameters"].values())


def test_the_reference_lists_every_kind_with_its_parameters() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "reference", "sandbox.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for one in described():
        row = rows.get(one["kind"], "")
        missing = [name for name in one["parameters"] if name not in COMMON and f"`{name}" not in row]
        assert row, f"{one['kind']} has no row"
        assert not missing, f"{one['kind']}: {missing}"


# --- virtual time -----------------------------------------------------------------------------


def director(*lines: str) -> tuple[Director, ManualClock, Counter[str]]:
    """A director of a sandbox without sockets."""
    clock, cut = ManualClock(START), Counter[str]()
    hub = SimpleNamespace(peers={}, log=EventLog(), drop=lambda: cut.update(drop=1))
    broker = SimpleNamespace(expire=lambda: cut.update(expire=1))
    stage = Stage(cast(Any, hub), cast(Any, broker), (), 1)
    return Director(stage, [parse(line) for line in lines], clock.monotonic, clock.wall_ns), clock, cut


def test_a_schedule_is_played_to_the_second() -> None:
    played, clock, cut = director("mute@20s for 5s connection=all", "expire@10s cut=yes", "refuse@1h for 1m")
    played.begin()
    while (wait := played.next_due()) is not None:
        clock.advance(wait)
        played.tick()
    spans = [(one.kind, one.start_ns - START, (one.end_ns or 0) - START) for one in played.injected]
    assert spans == [
        ("expire", 10_000_000_000, 10_000_000_000),
        ("mute", 20_000_000_000, 25_000_000_000),
        ("refuse", 3_600_000_000_000, 3_660_000_000_000),
    ]
    assert cut == {"expire": 1, "drop": 1}


def test_times_after_live_count_from_the_first_subscription() -> None:
    played, clock, _ = director("mute@live+3s connection=all")
    played.begin()
    clock.advance(100)
    played.tick()
    assert played.next_due() is None
    played.subscribed()
    clock.advance(2)
    played.subscribed()
    assert played.next_due() == 1
    clock.advance(1)
    played.tick()
    assert [one.start_ns - START for one in played.injected] == [103_000_000_000]
    assert played.injected[0].end_ns is None


def test_a_thousand_faults_start_in_the_order_of_their_times() -> None:
    played, clock, _ = director(*[f"expire@{(number * 7919) % 1000}s" for number in range(1000)])
    played.begin()
    for _ in range(1000):
        played.tick()
        clock.advance(1)
    starts = [one.start_ns - START for one in played.injected]
    assert starts == [number * 1_000_000_000 for number in range(1000)]


def test_a_fault_that_cannot_start_is_logged_and_the_others_go_on() -> None:
    played, _, cut = director("drop connection=5", "expire")
    played.stage.hub.log = EventLog(keep=True)
    played.begin()
    played.tick()
    assert cut == {"expire": 1}
    failed = [one for one in played.stage.hub.log.records if one["event"] == "fault_failed"]
    assert failed[0]["error"] == "fault 'drop': connection 5 is not open; open: none"


def test_a_line_fault_without_a_connection_is_over_at_once() -> None:
    played, _, _ = director("mute for 7s")
    played.begin()
    played.tick()
    (record,) = played.injected
    assert record.end_ns == record.start_ns
    assert record.connections == ()
