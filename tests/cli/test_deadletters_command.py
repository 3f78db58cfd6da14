"""``marketfeed deadletters`` on what a real feed put aside: a broker with damaged frames, yesterday's parser, a
sink that refuses rows, a callback that raises. Then everything is tried again.
"""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import marketfeed_kite.parser
import numpy as np
import pytest
from click.testing import CliRunner
from marketfeed_kite.parser import KiteParser

from marketfeed import cli
from marketfeed import config as configuration
from marketfeed.batches import TickBatch
from marketfeed.cli import deadletters as command_module
from marketfeed.contract import BadPacket, Frame, Parsed
from marketfeed.deadletters import DeadLetter, DeadLetters, LetterFolder, import_lines, letters_folder
from marketfeed.deadletters.folder import LEDGER
from marketfeed.deadletters.ledger import Intent, Ledger
from marketfeed.deadletters.letter import digests
from marketfeed.dtypes import Flag, Rows, empty_ticks
from marketfeed.engine.redo import Redo
from marketfeed.engine.summary import Summary
from marketfeed.errors import JournalError, MarketFeedError, SinkError
from marketfeed.feed import Feed
from marketfeed.journal import Journal, ticks_folder
from marketfeed.plugins import Plugins
from marketfeed.sandbox import Sandbox
from marketfeed.sandbox.hub import Outgoing
from marketfeed.tokens import MemoryTokenStore

NAMES = ["NSE:INFY", "NSE:TCS", "NSE:RELIANCE"]
ROOT = Path(__file__).resolve().parents[2]
desk = types.ModuleType("marketfeed_test_desk")


class Desk:
    """A function of the desk's own that does not take everything, until somebody mends it."""

    def __init__(self) -> None:
        self.refusing = True
        self.rows: list[tuple[str, int]] = []

    def take(self, batch: TickBatch) -> None:
        refused = [place for place, seq in enumerate(batch.seq.tolist()) if self.refusing and seq % 10 in (3, 4)]
        taken = np.delete(batch.seq, refused).tolist()
        self.rows += [(batch.journal, seq) for seq in taken]
        if refused:
            raise SinkError("too large for the desk", rejected=refused)


class YesterdaysParser(KiteParser):
    """Could not read the packets of one instrument."""

    unreadable = -1

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        kept, bad = [empty_ticks(0)], list[BadPacket]()
        for number, frame in enumerate(frames):
            rows, problems = super().__call__([frame])
            hidden = np.flatnonzero(rows["instrument"] == self.unreadable)
            kept.append(np.delete(rows, hidden))
            bad += [problem._replace(frame=number) for problem in problems]
            bad += [BadPacket(number, 2, "odd packet")] * len(hidden)
        return Parsed(np.frombuffer(bytearray(b"".join(one.tobytes() for one in kept)), kept[0].dtype), bad)


def write_config(folder: Path, settings: dict[str, Any], more: str = "") -> Path:
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if value is not None]
    text = f"""
[feeds.main]
vendor = "kite"
mode = "full"
instruments = {json.dumps(NAMES)}
sinks = ["desk", "archive"]
[vendors.kite]
{chr(10).join(lines)}
[sinks.desk]
type = "callable"
callable = "marketfeed_test_desk:take"
batch_timeout_s = 0
[sinks.archive]
type = "jsonl"
path = {json.dumps(str(folder / "archive.jsonl"))}
[journal]
folder = {json.dumps(str(folder / "journal"))}
[metrics]
port = false
{more}
"""
    path = folder / "feed.toml"
    path.write_text(text)
    return path


def bare_feed(config: Path) -> Feed:
    plugins = Plugins.discover()
    return Feed.from_config(configuration.load(config, plugins), "main", plugins=plugins, tokens=MemoryTokenStore())


class Damage:
    """Puts a packet of a length that nobody knows behind the good ones of one frame."""

    def __init__(self) -> None:
        self.frame = b""

    def __call__(self, message: Outgoing) -> Iterable[Outgoing]:
        data = message.data
        if not self.frame and message.origin == "tick" and isinstance(data, bytes) and len(data) > 2:
            count = int.from_bytes(data[:2], "big") + 1
            self.frame = count.to_bytes(2, "big") + data[2:] + b"\x00\x05hello"
            return [message._replace(data=self.frame)]
        return [message]


def zero_prices(box: Sandbox) -> Rows:
    """Two ticks of TCS that show trades but no price."""
    rows = empty_ticks(2)
    rows["instrument"] = next(n for n, one in enumerate(box.instruments) if one.key == "NSE:TCS")
    rows["exchange_ns"] = rows["received_ns"] = box.world.clock.wall_ns()
    for name in ("last_price", "average_price", "open", "high", "low", "close", "bid_price", "ask_price"):
        rows[name] = 0
    rows["volume"] = [7, 8]
    rows["flags"] = 3 | Flag.VOLUME | Flag.OHLC | Flag.DEPTH | Flag.EXCHANGE_TIME | Flag.QUANTITIES
    return rows


class Trial:
    """What the broker, the feed and the desk did."""

    folder: Path
    summary: Summary
    damaged: bytes


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    desk.take = Desk().take  # type: ignore[attr-defined]
    sys.modules[desk.__name__] = desk
    trial, damage = Trial(), Damage()
    trial.folder = tmp_path_factory.mktemp("trial")
    with pytest.MonkeyPatch.context() as patch, Sandbox("kite", seed=3, instruments=50, ticks_per_second=400) as box:
        patch.setattr(marketfeed_kite.parser, "KiteParser", YesterdaysParser)
        patch.setattr(YesterdaysParser, "unreadable", 0)
        feed = bare_feed(write_config(trial.folder, box.settings()))
        failures = iter([ValueError("the strategy's bug")])

        def strategy(batch: TickBatch) -> None:
            for failure in failures:
                raise failure

        feed.on_batch(strategy, name="strategy")
        with feed:
            for batch in feed:
                if batch.first_row > 20:
                    break
            box.add_filter(damage)
            box.push(zero_prices(box))
            for batch in feed:
                counts = feed.pipeline.deadletters.counts
                if batch.first_row > 80 and damage.frame and counts["row", "not_positive"]:
                    break
            trial.summary = feed.stop()
    trial.damaged = damage.frame
    yield trial
    del sys.modules[desk.__name__]


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The desk's function as it is today: mended."""
    helper = Desk()
    helper.refusing = False
    monkeypatch.setattr(desk, "take", helper.take, raising=False)
    return helper


@pytest.fixture
def folder(trial: Trial, tmp_path: Path) -> Path:
    """The trial's files, for this test alone."""
    shutil.copytree(trial.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "feed.toml").write_text((tmp_path / "feed.toml").read_text().replace(str(trial.folder), str(tmp_path)))
    return tmp_path


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli.main, ["deadletters", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout


def documents(*arguments: object, code: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, code=code).splitlines()]


def replay(folder: Path, *options: object, code: int = 0) -> list[dict[str, Any]]:
    return documents("replay", "--config", folder / "feed.toml", *options, code=code)


def store_of(folder: Path) -> LetterFolder:
    return LetterFolder(letters_folder(folder / "journal", "main"))


def journal_rows(folder: Path) -> Rows:
    with Journal.attach(ticks_folder(folder / "journal", "main")) as journal:
        reader = journal.reader(start="oldest")
        rows = reader.take(journal.committed).rows.copy()
        reader.close()
        return rows


def archive(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "archive.jsonl").read_text().splitlines()]


# --- what the feed put aside ------------------------------------------------------------------------


def test_the_feed_kept_every_kind_and_both_laws_hold(trial: Trial) -> None:
    letters = list(store_of(trial.folder))
    rows = Counter[str]()
    for letter in letters:
        rows[letter.kind] += letter.rows
    summary = trial.summary
    assert summary.parsed == summary.appended + summary.dropped + summary.dead_lettered + summary.lost
    assert (rows["packet"], rows["row"]) == (summary.bad_packets, summary.dead_lettered)
    assert rows["row"] == 2
    sinks = {sink.name: sink for sink in summary.sinks}
    assert (rows["refused"], rows["callback"]) == (sinks["desk"].dead_lettered, sinks["strategy"].dead_lettered)
    assert min(rows.values()) > 0
    for sink in sinks.values():
        assert sink.delivered + sink.skipped + sink.dead_lettered + sink.left == summary.appended
    assert any(letter.raw == trial.damaged for letter in letters)
    assert all(letter.raw[letter.offsets[0] :] for letter in letters if letter.offsets)


def test_list_says_when_which_and_why(trial: Trial) -> None:
    found = documents("list", trial.folder)
    kept = list(store_of(trial.folder))
    assert [one["id"] for one in found] == [letter.id for letter in kept]
    assert {one["vendor"] for one in found} == {"kite"}
    reasons = {(one["kind"], one["reason"]) for one in found}
    assert {
        ("packet", "odd_packet"),
        ("row", "not_positive"),
        ("refused", "SinkError"),
        ("callback", "ValueError"),
    } <= reasons
    assert next(one["symbol"] for one in found if one["kind"] == "row") == "NSE:TCS"
    assert "the strategy's bug" in next(one["error"] for one in found if one["kind"] == "callback")
    assert not any("raw" in one for one in found)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["--kind", "row"], {"row"}),
        (["--reason", "odd_packet"], {"packet"}),
        (["--source", "desk"], {"refused"}),
        (["--feed", "other"], set()),
        (["--since", "2100-01-01"], set()),
        (["--since", "20000d", "--kind", "callback"], {"callback"}),
    ],
)
def test_filters_leave_what_they_say(trial: Trial, options: list[str], kinds: set[str]) -> None:
    assert {one["kind"] for one in documents("list", trial.folder, *options)} == kinds


def test_limit_shows_the_newest(trial: Trial) -> None:
    every = documents("list", trial.folder)
    assert documents("list", trial.folder, "--limit", 2) == every[-2:]


def test_since_wants_a_span_or_a_time(trial: Trial) -> None:
    assert (
        "neither a span"
        in CliRunner().invoke(cli.main, ["deadletters", "list", str(trial.folder), "--since", "soon"]).output
    )


def test_stats_add_up(trial: Trial) -> None:
    found = documents("stats", "--config", trial.folder / "feed.toml")
    letters = list(store_of(trial.folder))
    assert sum(one["letters"] for one in found) == len(letters)
    assert sum(one["rows"] for one in found) == sum(letter.rows for letter in letters)
    assert all(one["first_ns"] <= one["last_ns"] for one in found)


def test_show_decodes_a_packet_with_todays_parser(trial: Trial) -> None:
    letter = next(one for one in store_of(trial.folder) if one.raw == trial.damaged)
    (found,) = documents("show", letter.id, "--config", trial.folder / "feed.toml")
    assert found["still_bad"] == [{"offset": len(letter.raw) - 7, "reason": "unknown packet length"}]
    assert {one["symbol"] for one in found["ticks"]} <= {"INFY", "TCS", "RELIANCE"}
    assert found["ticks"]


@pytest.mark.usefixtures("trial")
def test_on_a_terminal_everything_is_for_people(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_module, "on_terminal", lambda: True)
    assert "odd_packet" in run("list", trial.folder)
    assert "not_positive" in run("stats", trial.folder)
    letter = next(one for one in store_of(trial.folder) if one.raw == trial.damaged)
    text = run("show", letter.id, "--config", trial.folder / "feed.toml", "--bytes", 0)
    assert ">00 05" in text
    assert "unknown packet length" in text
    row = next(one for one in store_of(trial.folder) if one.kind == "row")
    text = run("show", row.id, trial.folder)
    assert "not_positive" in text
    assert "NSE:TCS" in text
    assert "dry run" not in run("replay", "--config", trial.folder / "feed.toml", "--dry-run")


def test_show_of_an_unknown_id_is_an_error(trial: Trial) -> None:
    run("show", "nothing", trial.folder, code=1)


# --- trying again -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("helper")
def test_todays_parser_reads_what_yesterdays_could_not_and_takes_nothing_twice(folder: Path) -> None:
    before = journal_rows(folder)
    letters = [letter for letter in store_of(folder) if letter.kind == "packet"]
    found = replay(folder, "--kind", "packet")
    results = Counter(one["result"] for one in found)
    after = journal_rows(folder)
    new = after[len(before) :]
    assert after[: len(before)].tobytes() == before.tobytes()
    assert not (before["instrument"] == 0).any()
    assert set(new["instrument"].tolist()) == {0}
    assert len(new) == sum(letter.offsets.count(2) for letter in letters)
    assert results["replayed"] >= len(letters) - 1
    assert results["still-bad"] + results["partly"] == 1
    again = replay(folder, "--kind", "packet")
    assert Counter(one["result"] for one in again) == {
        "done-before": results["replayed"],
        "still-bad": len(letters) - results["replayed"],
    }
    assert len(journal_rows(folder)) == len(after)


def test_rows_come_back_when_the_configuration_takes_them(folder: Path) -> None:
    (row,) = replay(folder, "--kind", "row")
    assert (row["result"], row["left"], row["detail"]) == ("still-bad", 2, "not_positive")
    config = folder / "feed.toml"
    config.write_text(config.read_text() + '\n[validation]\nnot_positive = "keep"\n')
    (dry,) = replay(folder, "--kind", "row", "--dry-run")
    assert (dry["result"], dry["rows"], dry["dry_run"]) == ("replayed", 2, True)
    before = len(journal_rows(folder))
    (row,) = replay(folder, "--kind", "row")
    assert (row["result"], row["rows"]) == ("replayed", 2)
    new = journal_rows(folder)[before:]
    assert new["last_price"].tolist() == [0, 0]
    assert (new["flags"] & np.uint32(Flag.NOT_POSITIVE)).all()
    assert replay(folder, "--kind", "row")[0]["result"] == "done-before"
    assert len(journal_rows(folder)) == before + 2


def test_a_dropped_row_is_done_with(folder: Path) -> None:
    config = folder / "feed.toml"
    config.write_text(config.read_text() + '\n[validation]\nnot_positive = "drop"\n')
    (row,) = replay(folder, "--kind", "row")
    assert (row["result"], row["rows"], row["detail"]) == ("replayed", 0, "validation drops 2 rows")
    assert replay(folder, "--kind", "row")[0]["result"] == "done-before"


def test_refused_rows_go_to_their_sink_under_their_own_names(folder: Path, helper: Desk) -> None:
    letters = [letter for letter in store_of(folder) if letter.kind == "refused"]
    wanted = [(one.journal, (one.first_row or 0) + n) for one in letters for n in range(one.rows)]
    assert {one["result"] for one in replay(folder, "--kind", "refused")} == {"replayed"}
    assert helper.rows == wanted
    assert {one["result"] for one in replay(folder, "--kind", "refused")} == {"done-before"}
    assert helper.rows == wanted


def test_a_sink_that_still_refuses_gets_only_the_rest_next_time(folder: Path, helper: Desk) -> None:
    letters = [letter for letter in store_of(folder) if letter.kind == "refused"]
    helper.refusing = True
    assert {one["result"] for one in replay(folder, "--kind", "refused")} == {"still-bad"}
    helper.refusing = False
    assert {one["result"] for one in replay(folder, "--kind", "refused")} == {"replayed"}
    assert len(helper.rows) == sum(letter.rows for letter in letters)


def test_a_sink_in_trouble_is_tried_later(folder: Path, helper: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(batch: TickBatch) -> None:
        raise SinkError("the desk is closed")

    monkeypatch.setattr(desk, "take", broken)
    found = replay(folder, "--kind", "refused", code=1)
    assert {(one["result"], one["detail"]) for one in found} == {("failed", "the desk is closed")}
    monkeypatch.setattr(desk, "take", helper.take)
    assert {one["result"] for one in replay(folder, "--kind", "refused")} == {"replayed"}


def test_callbacks_cannot_be_replayed_and_it_says_so(folder: Path) -> None:
    (found,) = replay(folder, "--kind", "callback")
    assert found["result"] == "impossible"
    assert "host program" in found["detail"]


def test_one_letter_can_be_chosen_by_its_id(folder: Path, helper: Desk) -> None:
    letter = next(one for one in store_of(folder) if one.kind == "refused")
    assert [one["id"] for one in replay(folder, letter.id)] == [letter.id]
    assert len(helper.rows) == letter.rows


def test_dry_run_changes_nothing(folder: Path, helper: Desk) -> None:
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    found = replay(folder, "--dry-run")
    assert Counter(one["result"] for one in found)["replayed"] > 2
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()} == before
    assert helper.rows == []


def test_while_the_feed_runs_replay_refuses_and_dry_run_does_not(folder: Path) -> None:
    ticks = ticks_folder(folder / "journal", "main")
    arguments = ["deadletters", "replay", "--config", str(folder / "feed.toml")]
    with Journal.create(ticks) as journal, journal.reader("desk"):
        for kind in ("packet", "refused"):
            result = CliRunner().invoke(cli.main, [*arguments, "--kind", kind])
            assert result.exit_code == 1
            assert "stop the feed first" in result.output
        assert replay(folder, "--dry-run")
        assert run("list", folder)


def test_two_replays_do_not_run_at_once(folder: Path) -> None:
    from marketfeed.journal.locks import FileLock

    lock = store_of(folder).path / "replay.lock"
    lock.touch()
    held = FileLock(lock)
    config = configuration.load(folder / "feed.toml", Plugins.discover())
    with pytest.raises(MarketFeedError, match="another replay"):
        list(Redo(config, "main").run(store_of(folder)))
    held.release()


# --- killed in between ------------------------------------------------------------------------------


def begun(folder: Path, letter: DeadLetter, *, appended: bool) -> None:
    """The state after a kill: before the append, or between it and the line that says so."""
    rows = letter.ticks()
    with Journal.create(ticks_folder(folder / "journal", "main")) as journal:
        intent = Intent(journal=journal.name, row=journal.committed, letters={letter.identity: digests(rows).tolist()})
        Ledger(store_of(folder).path / LEDGER).begin(intent)
        if appended:
            journal.append(rows)


@pytest.mark.parametrize("appended", [False, True])
def test_after_a_kill_the_journal_says_whether_the_rows_are_there(folder: Path, appended: bool) -> None:
    config = folder / "feed.toml"
    config.write_text(config.read_text() + '\n[validation]\nnot_positive = "keep"\n')
    letter = next(one for one in store_of(folder) if one.kind == "row")
    before = len(journal_rows(folder))
    begun(folder, letter, appended=appended)
    with (store_of(folder).path / LEDGER).open("ab") as file:
        file.write(b'{"step":"do')  # and the kill tore a line
    (found,) = replay(folder, "--kind", "row")
    assert found["result"] == ("done-before" if appended else "replayed")
    assert len(journal_rows(folder)) == before + 2
    assert replay(folder, "--kind", "row")[0]["result"] == "done-before"


# --- a sink that stores its position ----------------------------------------------------------------


def refused_by_the_archive(folder: Path, *places: int) -> None:
    """Letters as if the archive had refused these rows of the journal."""
    with Journal.attach(ticks_folder(folder / "journal", "main")) as journal:
        reader = journal.reader(start="oldest")
        rows = reader.take(journal.committed).rows
        reader.close()
        letters = DeadLetters("main", configuration_clock(), store_of(folder).path, vendor="kite", journal=journal)
        letters.put_rows("refused", "SinkError", "archive", rows[list(places)], seq=places)
        letters.close()


def configuration_clock() -> Any:
    from marketfeed.clock import ManualClock

    return ManualClock(1_795_150_800_000_000_000)


def test_redelivery_does_not_move_a_stored_position(folder: Path) -> None:
    before = archive(folder)
    refused_by_the_archive(folder, 5, 6, 2, 40)
    found = replay(folder, "--source", "archive")
    assert [one["result"] for one in found] == ["replayed"] * 3
    extra = archive(folder)[len(before) :]
    assert [one["seq"] for one in extra] == [5, 6, 2, 40]
    for again in extra:
        first = before[again["seq"]]
        assert again.pop("journal").endswith(".0")
        first.pop("journal")
        assert again == first
    with Journal.create(ticks_folder(folder / "journal", "main")) as journal:
        row = journal_rows(folder)[:1].copy()
        journal.append(row)
        last = journal.committed - 1
    summary = bare_feed(folder / "feed.toml").drain()
    assert [one["seq"] for one in archive(folder)[len(before) + 4 :]] == [last]
    sink = next(one for one in summary.sinks if one.name == "archive")
    assert (sink.left, sink.dead_lettered) == (0, 0)


def test_a_redelivery_that_was_killed_before_it_was_written_down_is_recognized(folder: Path) -> None:
    refused_by_the_archive(folder, 7, 8, 9)
    replay(folder, "--source", "archive")
    lines = archive(folder)
    (store_of(folder).path / LEDGER).unlink()
    assert {one["result"] for one in replay(folder, "--source", "archive")} == {"replayed"}
    assert archive(folder) == lines


def test_rows_refused_again_after_a_restart_are_the_same_rows(folder: Path) -> None:
    refused_by_the_archive(folder, 7)
    refused_by_the_archive(folder, 7)
    count = len(archive(folder))
    assert [one["result"] for one in replay(folder, "--source", "archive")] == ["done-before", "replayed"]
    assert len(archive(folder)) == count + 1


def test_a_sink_that_is_gone_from_the_configuration_is_named(folder: Path) -> None:
    config = folder / "feed.toml"
    config.write_text(config.read_text().replace('sinks = ["desk", "archive"]', 'sinks = ["archive"]'))
    found = replay(folder, "--kind", "refused")
    assert {one["detail"] for one in found} == {"the feed has no sink 'desk' in the configuration"}


# --- out and in -------------------------------------------------------------------------------------


def test_exported_lines_fit_the_schema_and_come_back_as_they_were(folder: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "letters.jsonl", tmp_path / "elsewhere"
    run("export", folder, "--raw", "--output", file)
    schema = json.loads((ROOT / "schemas" / "dead-letter.schema.json").read_text())
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for one in lines:
        jsonschema.validate(one, schema)
    assert set().union(*lines) <= set(schema["properties"])
    letters = list(store_of(folder))
    assert list(import_lines(file)) == letters
    other.mkdir()
    run("import", file, other)
    assert list(LetterFolder(letters_folder(other, "main"))) == letters
    result = CliRunner().invoke(cli.main, ["deadletters", "import", str(file), str(other)])
    assert f"0 letters added, {len(letters)} were there already" in result.output


def test_without_raw_nothing_can_be_imported(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    run("export", folder, "--output", file)
    with pytest.raises(MarketFeedError, match=r"line 1: .*--raw"):
        list(import_lines(file))


def test_a_line_that_is_no_letter_is_named(tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    file.write_text('{"kind": "packet"}\n')
    with pytest.raises(MarketFeedError, match="line 1"):
        list(import_lines(file))


def test_a_feed_name_from_outside_names_no_folder_elsewhere(folder: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "letters.jsonl", tmp_path / "deep" / "elsewhere"
    other.mkdir(parents=True)
    run("export", folder, "--raw", "--output", file)
    file.write_text(file.read_text().replace('"feed":"main"', '"feed":"../out"'))
    before = set(tmp_path.rglob("*"))
    result = CliRunner().invoke(cli.main, ["deadletters", "import", str(file), str(other)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert set(tmp_path.rglob("*")) == before


def test_letters_of_another_journal_are_not_mixed_into_this_one(folder: Path) -> None:
    with Journal.memory() as journal:
        letters = DeadLetters("main", configuration_clock(), store_of(folder).path, journal=journal)
        letters.put_rows("row", "not_positive", "connection 0", empty_ticks(1))
        letters.close()
    (found,) = [one for one in replay(folder, "--kind", "row") if one["result"] == "impossible"]
    assert "another journal" in found["detail"]


def test_without_a_journal_there_is_nowhere_to_put_rows(folder: Path) -> None:
    shutil.rmtree(folder / "journal" / "main" / "ticks")
    config = configuration.load(folder / "feed.toml", Plugins.discover())
    with pytest.raises(JournalError, match="no journal on disk"):
        list(Redo(config, "main").run(store_of(folder)))
