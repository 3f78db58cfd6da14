"""The store of dead letters as a feed fills it: cheap, bounded in every direction, whole after any damage."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from marketfeed.clock import ManualClock
from marketfeed.contract import BadPacket, Frame
from marketfeed.deadletters import DeadLetters, LetterFolder
from marketfeed.deadletters.folder import LEDGER
from marketfeed.deadletters.ledger import Ledger
from marketfeed.dtypes import empty_ticks
from marketfeed.errors import MarketFeedError
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal

NOW = 1_795_150_800_000_000_000


def store_in(folder: Path, max_bytes: int = 10**7, **options: object) -> DeadLetters:
    return DeadLetters("main", ManualClock(NOW), folder, max_bytes, **options)  # type: ignore[arg-type]


# --- in memory ------------------------------------------------------------------------------------


def test_without_a_disk_the_newest_letters_stay_within_a_bound_of_bytes_and_the_rest_is_counted() -> None:
    letters = DeadLetters("main", ManualClock())
    for number in range(20):
        letters.put("packet", "short", f"connection {number}", raw=bytes(2**20))
    assert [letter.source for letter in letters.recent] == [f"connection {number}" for number in range(4, 20)]
    assert letters.overflowed == 4
    letters.put("packet", "short", "connection 20", raw=bytes(2**25))
    assert [letter.source for letter in letters.recent] == ["connection 20"]
    assert letters.counts["packet", "short"] == 21


def test_reasons_that_never_repeat_do_not_make_endless_metrics() -> None:
    letters = DeadLetters("main", ManualClock())
    for number in range(1000):
        letters.put("packet", f"offset {number}", "connection 0")
    assert len(letters.counts) == 201
    assert letters.counts["packet", "other"] == 800


def test_a_reason_becomes_a_code_and_what_was_said_stays() -> None:
    letters = DeadLetters("main", ManualClock())
    letters.put("packet", "packet cut short", "connection 0")
    assert (letters.recent[0].reason, letters.recent[0].error) == ("packet_cut_short", "packet cut short")


def test_errors_are_bounded_and_hold_no_secret() -> None:
    letters = DeadLetters("main", ManualClock(), hidden=lambda: ["canary-7319"])
    letters.put("refused", "SinkError", "s", error="amqp://user:pa55@host: api_key=abcdef, canary-7319" + "x" * 5000)
    text = letters.recent[0].error
    assert len(text) == 1000
    assert not any(secret in text for secret in ("pa55", "abcdef", "canary-7319"))


# --- on disk --------------------------------------------------------------------------------------


def test_what_was_put_is_read_again_field_by_field(tmp_path: Path) -> None:
    with Journal.memory(vendor="kite") as journal:
        journal.instruments.register([Instrument(exchange="NSE", symbol="INFY", token="408065")])
        letters = store_in(tmp_path, vendor="kite", journal=journal)
        rows = empty_ticks(3)
        rows["instrument"] = 0
        rows["last_price"] = [1, 2, 3]
        letters.put_rows("refused", "SinkError", "kafka", rows, seq=[7, 8, 9], error="too large")
        letters.put_frame("connection 1", Frame(b"frame", 5), [BadPacket(0, 2, "cut"), BadPacket(0, 4, "odd")], rows)
        letters.close()
        refused, packet = LetterFolder(tmp_path)
        assert [refused, packet] == list(letters.recent)
        assert (refused.feed, refused.vendor, refused.journal, refused.at_ns) == ("main", "kite", journal.name, NOW)
        assert (refused.symbol, refused.token, refused.first_row, refused.rows) == ("NSE:INFY", "408065", 7, 3)
        assert refused.ticks()["last_price"].tolist() == [1, 2, 3]
        assert (packet.raw, packet.offsets, packet.received_ns, packet.instruments) == (b"frame", (2, 4), 5, 1)
        assert letters.counts == {("refused", "SinkError"): 3, ("packet", "cut"): 1, ("packet", "odd"): 1}


def test_rows_that_do_not_follow_one_another_are_letters_of_their_own(tmp_path: Path) -> None:
    letters = store_in(tmp_path)
    letters.put_rows("refused", "E", "s", empty_ticks(5), seq=[3, 4, 9, 10, 12])
    letters.put_rows("row", "not_positive", "connection 0", empty_ticks(3000))
    letters.close()
    found = [(one.first_row, one.rows) for one in LetterFolder(tmp_path)]
    assert found == [(3, 2), (9, 2), (12, 1), (None, 1024), (None, 1024), (None, 952)]


def test_secrets_in_raw_bytes_are_blanked_and_offsets_stay(tmp_path: Path) -> None:
    letters = store_in(tmp_path, hidden=lambda: ["canary-7319"])
    letters.put("packet", "not JSON", "connection 0", raw=b'{"token":"canary-7319"')
    letters.close()
    (letter,) = LetterFolder(tmp_path)
    assert letter.raw == b'{"token":"***********"'
    assert not any(b"canary" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_frame_larger_than_the_store_takes_is_cut_and_says_so(tmp_path: Path) -> None:
    letters = store_in(tmp_path, max_bytes=1_000_000)
    letters.put("packet", "odd", "connection 0", raw=bytes(200_000))
    letters.close()
    (letter,) = LetterFolder(tmp_path)
    assert (len(letter.raw), letter.cut) == (62_500, 200_000)


def test_a_second_run_goes_on_in_a_segment_and_with_ids_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        letters = store_in(tmp_path)
        letters.put("packet", "odd", "connection 0")
        letters.close()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["letters-00000001.bin", "letters-00000002.bin"]
    assert len({letter.id for letter in LetterFolder(tmp_path)}) == 2


def test_a_run_without_letters_leaves_no_file_and_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    letters = store_in(tmp_path / "deadletters")
    assert letters.settle()
    letters.close()
    letters.close()
    assert not (tmp_path / "deadletters").exists()
    assert threading.active_count() == before


def test_a_letter_after_the_end_is_counted_and_not_kept(tmp_path: Path) -> None:
    letters = store_in(tmp_path)
    letters.close()
    letters.put("packet", "odd", "connection 0")
    assert (letters.counts["packet", "odd"], letters.overflowed) == (1, 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_torn_tail_costs_the_last_letter_only(tmp_path: Path, seed: int) -> None:
    letters = store_in(tmp_path)
    for number in range(20):
        letters.put("packet", "odd", "connection 0", raw=random.Random(number).randbytes(200))
    letters.close()
    store = LetterFolder(tmp_path)
    whole = list(store)
    (path,) = store.segments().values()
    data = path.read_bytes()
    ends = [0, *(data.index(letter.raw) + len(letter.raw) for letter in whole)]
    length = random.Random(seed).randrange(ends[-1])
    with path.open("r+b") as file:
        file.truncate(length)
    complete = sum(end <= length for end in ends[1:])
    assert list(store) == whole[:complete]
    assert store.damaged_bytes == length - ends[complete]


@pytest.mark.parametrize("seed", range(20))
def test_garbled_bytes_cost_the_letters_they_hit(tmp_path: Path, seed: int) -> None:
    letters = store_in(tmp_path)
    for number in range(20):
        letters.put("packet", "odd", "connection 0", raw=random.Random(number).randbytes(200))
    letters.close()
    store = LetterFolder(tmp_path)
    whole = list(store)
    (path,) = store.segments().values()
    data = bytearray(path.read_bytes())
    place = random.Random(seed).randrange(len(data) - 8)
    data[place : place + 8] = bytes(one ^ 0x5A for one in data[place : place + 8])
    path.write_bytes(data)
    left = list(store)
    assert 18 <= len(left) <= 19  # eight bytes touch one letter or two
    assert [one for one in whole if one in left] == left
    assert store.damaged_bytes > 0


def test_the_oldest_eighth_goes_first_loudly_and_the_bound_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    letters = store_in(tmp_path, max_bytes=100_000)
    with caplog.at_level(logging.ERROR, "marketfeed.deadletters"):
        for _ in range(1000):
            letters.put("packet", "odd", "connection 0", raw=bytes(500))
            if not _ % 100:
                letters.settle()
                assert LetterFolder(tmp_path).size <= 100_000
        letters.close()
    left = list(LetterFolder(tmp_path))
    assert left == list(letters.recent)[-len(left) :]
    assert len(left) > 80
    assert letters.overflowed == 1000 - len(left)
    assert "nobody had replayed" in caplog.text


def test_what_was_replayed_may_go_without_a_word(tmp_path: Path) -> None:
    letters = store_in(tmp_path, max_bytes=100_000)
    for _ in range(150):
        letters.put("packet", "odd", "connection 0", raw=bytes(500))
    letters.settle()
    ids = [letter.id for letter in LetterFolder(tmp_path)]
    Ledger(tmp_path / LEDGER).done(dict.fromkeys(ids, ()), ids, at_ns=1, target="x")
    before = letters.overflowed
    for _ in range(100):
        letters.put("packet", "odd", "connection 0", raw=bytes(500))
    letters.close()
    gone = set(ids) - {letter.id for letter in LetterFolder(tmp_path)}
    assert gone
    assert letters.overflowed == before


def test_puts_of_many_threads_are_all_there(tmp_path: Path) -> None:
    letters = store_in(tmp_path)

    def put(number: int) -> None:
        for place in range(200):
            letters.put("packet", "odd", f"connection {number}", raw=bytes(place))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert letters.settle()
    found = list(LetterFolder(tmp_path))
    letters.close()
    assert letters.overflowed == 0
    assert len({letter.id for letter in found}) == 1600
    for number in range(8):
        sizes = [len(letter.raw) for letter in found if letter.source == f"connection {number}"]
        assert sizes == list(range(200))


def test_a_folder_that_cannot_be_made_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    letters = store_in(tmp_path / "file" / "deadletters")
    for _ in range(3):
        letters.put("packet", "odd", "connection 0")
    letters.close()
    assert (letters.counts["packet", "odd"], letters.overflowed) == (3, 3)
    assert letters.trouble


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from marketfeed.clock import ManualClock
from marketfeed.deadletters import DeadLetters
folder = Path(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
letters = DeadLetters("main", ManualClock(1), folder, 10_000_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
for _ in range(20):
    letters.put("packet", "odd", "connection 0", raw=bytes(700))
letters.settle()
full = letters.overflowed, letters.trouble
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
for _ in range(5):
    letters.put("packet", "late", "connection 0", raw=bytes(700))
letters.close()
print(json.dumps([*full, letters.overflowed, letters.trouble]))
"""


@pytest.mark.process
def test_a_full_disk_is_counted_tears_nothing_and_passes(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    overflowed, trouble, at_the_end, no_trouble = json.loads(result.stdout)
    store = LetterFolder(tmp_path)
    kept = list(store)
    assert 0 < overflowed < 20
    assert trouble
    assert (at_the_end, no_trouble) == (overflowed, "")
    assert len(kept) + overflowed == 25
    assert sum(letter.reason == "late" for letter in kept) == 5
    assert store.damaged_bytes == 0
    assert result.stderr.count("cannot be kept") == 1


def test_a_letter_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    letters = store_in(tmp_path)
    letters.put("packet", "odd", "connection 0")
    letters.put("packet", "odd", "connection 0")
    letters.close()
    store = LetterFolder(tmp_path)
    first, second = store
    assert store.get(second.id) == second
    with pytest.raises(MarketFeedError, match="2 letters begin with"):
        store.get(first.id[:10])
    with pytest.raises(MarketFeedError, match="no letter"):
        store.get("nothing")


def test_putting_costs_little_even_when_the_disk_is_slow(tmp_path: Path) -> None:
    letters = store_in(tmp_path)
    gate = threading.Event()
    assert letters._writer is not None
    write = letters._writer.write
    letters._writer.write = lambda ones: (gate.wait(10), write(ones))[1]  # type: ignore[method-assign, assignment]
    for _ in range(100):
        letters.put("packet", "odd", "connection 0", raw=bytes(2**20))
    assert not letters.settle(0.01)
    waiting = 100 - letters.overflowed
    assert waiting == 32  # MiB may wait
    gate.set()
    letters.close()
    assert len(list(LetterFolder(tmp_path))) + letters.overflowed == 100


def test_digests_know_rows_again_by_what_the_broker_said() -> None:
    from marketfeed.deadletters.letter import digests

    rows = empty_ticks(1000)
    rows["last_price"] = np.arange(1000)
    before = digests(rows)
    assert len(set(before.tolist())) == 1000
    rows["received_ns"] = 5
    rows["flags"] |= np.uint32(1 << 20)
    rows["check"] = 7
    assert digests(rows).tolist() == before.tolist()
    rows["volume"][3] = 1
    assert (digests(rows) != before).nonzero()[0].tolist() == [3]
