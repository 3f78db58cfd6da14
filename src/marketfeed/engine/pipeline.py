"""The threads of one feed, started and stopped together.

Order of starting: sinks, events, parse thread, connections. Order of stopping: connections, parse
thread (which empties the inbox), sinks (which empty the journal), events.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from marketfeed.calendars import ALWAYS, MarketCalendar
from marketfeed.clock import Clock
from marketfeed.config import ValidationConfig
from marketfeed.contract import Parser, Sink, Subscription
from marketfeed.engine.account import Account
from marketfeed.engine.behind import Lag
from marketfeed.engine.bookkeeping import Bookkeeper
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.delivery import Delivery
from marketfeed.engine.events import Events
from marketfeed.engine.gaps import GapLedger
from marketfeed.engine.gapwriter import GapWriter
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.latest import Latest
from marketfeed.engine.lines import LineLimits, Lines, spread
from marketfeed.engine.logs import Log
from marketfeed.engine.parsing import ParseLoop
from marketfeed.engine.status import is_ready, sinks_of, status_of, summary_of
from marketfeed.engine.summary import SinkSummary, Summary
from marketfeed.engine.upkeep import Upkeep
from marketfeed.engine.validation import Validator
from marketfeed.engine.wire import Wire
from marketfeed.errors import JournalError, MarketFeedError, Overrun
from marketfeed.framelog import FrameLog
from marketfeed.instruments import InstrumentTable, TokenMap
from marketfeed.journal import Journal, Reader
from marketfeed.journal.attached import FileJournal
from marketfeed.journal.base import Start
from marketfeed.runs import RunBook

__all__ = ["Pipeline", "SinkPlan"]

_GRACE_S = 2.0
"""How long a thread that was told to give up may take to return."""

_LOOK_S = 0.1
"""How often a start that waits for a sink looks whether it is to end."""


@attrs.frozen(kw_only=True)
class SinkPlan:
    """One sink and how to feed it."""

    name: str
    sink: Sink
    batch_rows: int = 4096
    batch_timeout_s: float = 0.0
    flush_every_s: float = 1.0
    start: Start = "run"
    """Where a sink without a cursor begins: at this run's first row, the oldest or the newest one."""
    on_startup_error: str = "fail"
    lag: Lag = attrs.field(factory=Lag)
    keep: bool = True
    """Whether rows wait for it, over restarts too; an observer only sees the present run."""
    letters: str = "refused"
    """The kind of its dead letters: ``refused``, or ``callback`` for a function of the host program."""


class Pipeline:
    """Everything between one account and its sinks."""

    def __init__(
        self,
        name: str,
        journal: Journal,
        plans: Sequence[SinkPlan],
        events: Events,
        deadletters: DeadLetters,
        clock: Clock,
        log: Log,
        stop_timeout_s: float = 10.0,
        validation: ValidationConfig | None = None,
        gaps: GapLedger | None = None,
        book: RunBook | None = None,
        elsewhere: Mapping[str, Start] | None = None,
    ) -> None:
        self.name = name
        self.journal = journal
        self.events = events
        self.deadletters = deadletters
        self.clock = clock
        self.log = log
        self.stop_timeout_s = stop_timeout_s
        self._validation = validation
        self.gaps = gaps or GapLedger(GapWriter(name, journal.origin.vendor, journal, clock, log, events.put))
        self.first_row = journal.run_start
        """The journal's next row when this run began."""
        self.latest = Latest(journal.origin)
        self.lines: Lines | None = None
        self.deliveries: list[Delivery] = []
        self.parse: ParseLoop | None = None
        self.books: Bookkeeper | None = None
        self._book = book
        self.elsewhere = dict(elsewhere or {})
        """Sinks of this feed that processes of their own deliver to, and where they begin."""
        self.capture: FrameLog | None = None
        self.error: Exception | None = None
        self.finished = threading.Event()
        """Set when the feed cannot go on by itself, or was stopped."""
        self.rows_missed = 0
        """Rows that loops over the feed came too late for."""
        self._stopping = threading.Event()
        self._inbox: Inbox | None = None
        self._threads: dict[str, threading.Thread] = {}
        self._running_wires = 0
        self._lock = threading.Lock()
        self._thread("events", events.run)
        self._thread("gaps", self.gaps.run)
        for place in self.elsewhere.items():
            self._hold_place(*place)
        for plan in plans:
            self.add_sink(plan)

    # --- starting -------------------------------------------------------------------------------

    def add_sink(self, plan: SinkPlan) -> Delivery:
        """Start a sink's thread; it begins to deliver at once. Raises ``MarketFeedError`` for a name in use."""
        if any(plan.name == one.name for one in self.deliveries):
            raise MarketFeedError(f"feed {self.name!r} has a sink {plan.name!r} already; give this one another name")
        delivery = Delivery(
            name=plan.name,
            sink=plan.sink,
            open_reader=lambda: self.journal.reader(plan.name, start=plan.start, keep=plan.keep),
            locate=partial(_locate, plan.sink, self.journal),
            clock=self.clock,
            deadletters=self.deadletters,
            log=self.log,
            emit=lambda kind, data: self.events.put(kind, None, data),
            batch_rows=plan.batch_rows,
            batch_timeout_s=plan.batch_timeout_s,
            flush_every_s=plan.flush_every_s,
            on_startup_error=plan.on_startup_error,
            lag=plan.lag,
            missed=self.gaps.skipped,
            letters=plan.letters,
        )
        self.deliveries.append(delivery)
        self._thread(f"sink-{plan.name}", delivery.run)
        return delivery

    def _hold_place(self, sink: str, start: Start) -> None:
        """Make the cursor of a sink that another process delivers to, so that rows wait for it from now on."""
        if isinstance(self.journal, FileJournal) and sink not in [one.name for one in self.journal.cursors()]:
            try:
                self.journal.reader(sink, start=start).close()
            except JournalError:
                self.log.debug("the sink's own process was faster", sink=sink)  # it made the cursor

    def wait_for_sinks(self) -> None:
        """Wait until every sink was opened; raise the first one's error that forbids the start.

        A sink that never returns from ``open`` does not hold up a stop: ``MarketFeedError`` then.
        """
        for delivery in self.deliveries:
            while not delivery.opened.wait(_LOOK_S):
                self._refuse_when_stopping()
        for delivery in self.deliveries:
            if delivery.startup_error is not None:
                raise MarketFeedError(
                    f"sink {delivery.name!r} cannot start: {delivery.error}"
                ) from delivery.startup_error

    def connect(
        self,
        account: Account,
        wanted: Subscription,
        tokens: TokenMap,
        limits: LineLimits,
        *,
        calendar: MarketCalendar = ALWAYS,
        capture: FrameLog | None = None,
        again: Callable[[InstrumentTable], Subscription] = lambda _: Subscription(),
    ) -> None:
        """Start the parse thread, the connections and the upkeep.

        With ``capture``, what is received is kept as it came. ``again`` says what else a new day's master brings.
        """
        parts = spread(wanted, limits)  # too many for the account: say so before anything starts
        self._refuse_when_stopping()
        account.session()
        inbox = Inbox(limits.connections, self.clock)
        if capture is not None:
            self.capture = capture
            self._thread("capture", capture.run)
        self.start_parsing(inbox, lambda: account.parser(tokens))
        self.lines = Lines(
            account=account,
            inbox=inbox,
            tokens=tokens,
            register=self.journal.instruments.register,
            limits=limits,
            clock=self.clock,
            log=self.log,
            emit=self.events.put,
            run=self._start_wire,
            calendar=calendar,
            listener=self.gaps,
        )
        self.gaps.begin(parts, calendar)
        self._keep_books()
        with self._lock:
            self._running_wires += 1  # until all are started, none of them is the last one
        try:
            self.lines.start(wanted)
        finally:
            self._wire_ended()
        upkeep = Upkeep(
            account, self.lines, self.latest, calendar, self.clock, self.log, self.events.put, self._stopping, again
        )
        self._thread("upkeep", upkeep.run)

    def _keep_books(self) -> None:
        assert self.parse is not None
        self.books = Bookkeeper(self.parse, self._book, self.first_row, self.clock, self.log, self.events.put)
        self.books.begin()
        self._thread("books", self.books.run)

    @property
    def wires(self) -> list[Wire]:
        """The connections, by number."""
        return self.lines.wires if self.lines else []

    def _start_wire(self, wire: Wire) -> None:
        with self._lock:
            self._running_wires += 1
        if self._stopping.is_set():  # added at run time, beside a stop that did not see it
            wire.stop()
        self._thread(f"wire-{wire.number}", partial(self._run_wire, wire))

    def start_parsing(self, inbox: Inbox, make_parser: Callable[[], Parser]) -> None:
        """Start the parse thread on frames of connections, or of a capture."""
        self._inbox = inbox
        self.parse = ParseLoop(
            inbox=inbox,
            make_parser=make_parser,
            journal=self.journal,
            deadletters=self.deadletters,
            latest=self.latest,
            clock=self.clock,
            log=self.log,
            fail=self.fail,
            missed=self.gaps.dropped,
            capture=self.capture,
            validator=Validator(self._validation, self.journal.instruments),
        )
        self._thread("parse", self.parse.run)

    def forget_rows(self) -> None:
        """Let validation begin anew, as with a new process. For a replay, on the parse thread."""
        if self.parse is not None:
            fresh = Validator(self._validation, self.journal.instruments)
            fresh.counts = self.parse.validator.counts
            self.parse.validator = fresh

    def _run_wire(self, wire: Wire) -> None:
        try:
            wire.run()
        except Exception as error:  # a bug; never end in silence
            wire.error = error
            self.log.error("connection thread broke", connection=wire.number, error=repr(error))
        self._wire_ended()

    def _wire_ended(self) -> None:
        """Without the last connection the feed cannot go on; one of several leaves the others alone."""
        with self._lock:
            self._running_wires -= 1
            last = self._running_wires == 0
        errors = [wire.error for wire in self.wires if wire.error is not None]
        if last and errors and len(errors) == len(self.wires):
            self.fail(errors[-1])

    def _thread(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(
            target=self._guarded, args=(name, target), name=f"marketfeed-{self.name}-{name}", daemon=True
        )
        self._threads[name] = thread
        thread.start()

    def _guarded(self, name: str, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:  # a bug: no thread of a feed ends in silence
            self.log.error("a thread broke", thread=name, error=repr(error))
            self.fail(error if isinstance(error, Exception) else MarketFeedError(f"thread {name} ended: {error!r}"))

    def owns(self, thread: threading.Thread) -> bool:
        """Whether it is one of the feed's own, such as that of a callback."""
        return thread in list(self._threads.values())

    def _refuse_when_stopping(self) -> None:
        if self._stopping.is_set():
            raise MarketFeedError(f"feed {self.name!r} was stopped while it started")

    # --- ending ---------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """The feed cannot go on: remember why, wake whoever waits for it."""
        if self.error is None:
            self.error = error
        self.finished.set()

    def overrun(self, gap: Overrun) -> None:
        """A loop over the feed came too late for some rows: tell, and let it go on."""
        self.rows_missed += gap.missed
        self.log.warning("a loop is too slow", reader=gap.reader, missed=gap.missed, next_row=gap.next_row)
        self.events.put("overrun", None, {"reader": gap.reader, "missed": gap.missed})

    def stop(self) -> Summary:
        """Stop in order, within ``stop_timeout_s``; what is not delivered stays in the journal."""
        self._stopping.set()
        deadline = self.clock.monotonic() + self.stop_timeout_s
        for wire in self.wires:
            wire.stop()
        if self._inbox is not None:
            self._inbox.open_wide()
        # A wire in the middle of connecting or logging in opens nothing any more and ends by itself.
        self._join("wire-", min(deadline, self.clock.monotonic() + _GRACE_S))
        if self._inbox is not None and self.parse is not None:
            self._inbox.close()
            self._join("parse", deadline)
            self.parse.stopping.set()  # a full disk does not hold up the end
            self._join("parse", deadline + _GRACE_S)
        if self.books is not None and "parse" not in self._threads:
            self.books.close()
        if self.capture is not None:
            self.capture.close()  # it writes what it has while the sinks end
        for delivery in self.deliveries:
            delivery.stop()
        self._join("sink-", deadline)
        for delivery in self.deliveries:
            delivery.abandon()
        self._join("sink-", deadline + _GRACE_S)
        self._join("capture", deadline + _GRACE_S)
        self.deadletters.close(max(_GRACE_S, deadline - self.clock.monotonic()))
        self.gaps.close()
        self._join("gaps", deadline + _GRACE_S)
        self.events.put("stopped")
        self.events.close()
        self._join("events", deadline + _GRACE_S)
        self._join("books", deadline + _GRACE_S)
        self._join("upkeep", deadline + _GRACE_S)
        self._join("wire-", 0.0)
        self.finished.set()
        return self.summary()

    def _join(self, prefix: str, deadline: float) -> None:
        for name, thread in list(self._threads.items()):
            if name.startswith(prefix) and thread is not threading.current_thread():
                thread.join(max(0.05, deadline - self.clock.monotonic()))
                if not thread.is_alive():
                    del self._threads[name]

    @property
    def stuck_threads(self) -> list[str]:
        """Threads that outlived :meth:`stop`, such as a sink that never returns from ``write``."""
        return [name for name, thread in self._threads.items() if thread.is_alive()]

    # --- telling --------------------------------------------------------------------------------

    def journal_rows(self) -> int:
        """Rows appended in this run."""
        return self.journal.committed - self.first_row

    def summary(self) -> Summary:
        """The counts of this run."""
        return summary_of(self)

    def summary_of_sinks(self) -> tuple[SinkSummary, ...]:
        """The counts of each sink, those with a process of their own included."""
        return sinks_of(self)

    @property
    def ready(self) -> bool:
        """True while data flow as they should: every connection live, every sink delivering."""
        return is_ready(self)

    def status(self) -> dict[str, Any]:
        """The state of each part, ready for JSON."""
        return status_of(self)


def _locate(sink: Sink, journal: Journal, reader: Reader) -> None:
    """Put the reader of an open sink at the position that the sink stored itself, if it does."""
    for epoch in range(journal.epoch, 0, -1):  # a power cut raised the epoch: look for the older names, too
        name = f"{journal.id}.{epoch}"
        row = sink.position(name)
        if row is not None:
            # Rows that are gone need not be found missing at each start.
            reader.seek(max(journal.locate(name, row) or 0, min(reader.position, journal.oldest)))
            return
