"""What the process tests run in processes of their own: ``python children.py ROLE FOLDER ...``.

The rows' content follows from their numbers, so that any process can check any row.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

from marketfeed.dtypes import TICK, Rows
from marketfeed.errors import JournalError
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal
from marketfeed.journal.rowcheck import RowCheck

CHECK_WORD = TICK.fields["check"][1] // 8  # type: ignore[index]
RECEIVED_WORD = 1
NAMED_WORD = CHECK_WORD - 1


def content(first: int, count: int) -> Rows:
    """Rows ``first`` and following: every word is a function of the row's number."""
    numbers = np.arange(first, first + count, dtype="i8")
    words = numbers[:, None] * 1_000_003 + np.arange(45, dtype="i8") * 7919
    words[:, RECEIVED_WORD] = numbers + 1
    words[:, NAMED_WORD] = 0
    words[:, CHECK_WORD] = 0
    rows: Rows = words.reshape(-1).view(TICK)
    return rows


def wrong(rows: Rows, first: int) -> int:
    """How many rows differ from what their numbers say, in any word, or fail their check."""
    found = rows.view("i8").reshape(-1, 45)
    expected = content(first, len(rows)).view("i8").reshape(-1, 45)
    words = [word for word in range(45) if word != CHECK_WORD]
    same = (found[:, words] == expected[:, words]).all(axis=1)
    return int((~(same & RowCheck(TICK).fits(rows, first))).sum())


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def write(folder: Path, seed: str) -> None:
    """Append batches of 1 to 2,000 rows until killed."""
    chance = random.Random(seed)
    keep = 400_000_000
    with Journal.create(folder, rows_per_segment=1000, keep_bytes=keep // 10, max_bytes=keep) as journal:
        journal.instruments.register([Instrument(exchange="NSE", symbol="INFY", token="408065")])
        say(pid=os.getpid(), committed=journal.committed, epoch=journal.epoch, lost=journal.recovery.lost)
        while True:
            journal.append(content(journal.committed, chance.choice([1, 3, 50, 700, chance.randrange(1, 2000)])))
            if chance.random() < 0.3:
                time.sleep(chance.random() / 1000)


def watch(folder: Path) -> None:
    """Check every row that appears, until standard input closes; survives the writer's restarts."""
    import select

    rows = bad = 0
    with Journal.attach(folder).reader("watch", start="oldest") as reader:
        say(ready=True)
        ended = False
        while True:
            batch = reader.take(8192, wait_s=0.02)
            bad += wrong(batch.rows, batch.first_row)
            rows += len(batch)
            reader.commit()
            if ended and not len(batch):
                break
            ended = ended or bool(select.select([sys.stdin], [], [], 0)[0])
        say(rows=rows, bad=bad, skipped=reader.counts.skipped, cut=reader.cut, next_row=reader.next_row)


def sink(folder: Path, output: str) -> None:
    """Write the number of each row to a file, then commit."""
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Journal.attach(folder).reader("sink", start="oldest") as reader:
        say(ready=True)
        while True:
            batch = reader.take(50, wait_s=0.05)
            if len(batch):
                os.write(fd, batch.seq.tobytes())
                reader.commit()


def follow(folder: Path, wanted: str) -> None:
    """Follow the journal for that many rows."""
    rows = bad = 0
    journal = Journal.attach(folder)
    symbols: set[str] = set()
    batches = journal.follow(start="oldest", wait_s=0.05)
    say(ready=True)
    for batch in batches:
        rows += len(batch)
        bad += wrong(batch.rows, batch.first_row)
        symbols.update(batch.symbols)
        if rows >= int(wanted):
            break
    say(rows=rows, bad=bad, symbols=sorted(symbols), alive=journal.writer_alive)


def second(folder: Path) -> None:
    """Try to write a journal that has a writer."""
    try:
        Journal.create(folder)
    except JournalError as error:
        say(error=str(error))


def fork(folder: Path) -> None:
    """Fork, let the child try everything that it must not do, and end before the child does."""
    journal = Journal.create(folder, sync="os")
    journal.append(content(0, 5))
    reader = journal.reader("sink", start="oldest")
    reader.take()
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        errors = json.loads(os.read(told, 10_000))
        say(errors=errors, committed=journal.committed, alive=journal.writer_alive)
        reader.commit()
        os._exit(0)  # not in order; the child lives on
    errors = []
    tries = (
        lambda: journal.append(content(5, 5)),
        lambda: journal.instruments.register([Instrument(exchange="NSE", symbol="X", token="1")]),
        reader.commit,
    )
    for each in tries:
        try:
            each()
        except JournalError as error:
            errors.append(str(error))
    reader.close()
    journal.close()
    os.write(tell, json.dumps(errors).encode())
    os.close(tell)
    sys.stdin.read()
    os._exit(0)


def limit(folder: Path) -> None:
    """Let files grow only so far, as a full disk would."""
    import resource

    journal = Journal.create(folder, rows_per_segment=100, sync="os")
    reader = journal.reader("sink")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    steps = []
    for first, count, size in ((0, 10, most), (10, 60, 4096 + 50 * 360 + 100), (10, 150, 40_050), (10, 290, most)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
        try:
            journal.append(content(first, count))
            error = 0
        except OSError as refused:
            error = refused.errno or -1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        steps.append([error, journal.committed])
    bad, rows = 0, 0
    while len(batch := reader.take()):
        bad += wrong(batch.rows, batch.first_row)
        rows += len(batch)
    journal.close()
    say(steps=steps, rows=rows, bad=bad)


if __name__ == "__main__":
    role = {one.__name__: one for one in (write, watch, sink, follow, second, fork, limit)}[sys.argv[1]]
    role(Path(sys.argv[2]), *sys.argv[3:])
