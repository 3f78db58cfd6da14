"""Checks of a vendor's parser: values, times, numbers, damage, state."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from marketfeed.clock import NS
from marketfeed.contract import Frame
from marketfeed.dtypes import FLAG_GROUPS, MODE_MASK, REASON_MASK, TICK, Flag, Rows, empty_ticks
from marketfeed.enums import Mode
from marketfeed.instruments import TokenMap
from marketfeed.testing.bench import Bench, Talk, frame_of, parsed
from marketfeed.testing.vendor_case import VendorCase

__all__ = ["DamageChecks", "ParserChecks"]

_PAISA: Final = 0.005 + 1e-9
"""Averages and the levels of a book may come rounded to a paisa."""
_TIMES: Final = {Flag.EXCHANGE_TIME: "exchange_ns", Flag.TRADE_TIME: "last_trade_ns"}
_ROUNDED: Final = frozenset({"average_price"})


def alike(found: Rows, sent: Rows) -> list[str]:
    """How rows differ from those that were sent, in the groups that they carry. Times may lack their fraction."""
    problems = []
    if len(found) != len(sent):
        return [f"{len(found)} rows, not {len(sent)}"]
    names = [("last_price", np.ones(len(found), bool))]
    for flag, fields in FLAG_GROUPS.items():
        # Some brokers send a time of an instrument that never traded.
        both = sent["flags"] if flag in _TIMES else found["flags"]
        names += [(name, (found["flags"] & both & flag) > 0) for name in fields]
    for name, carried in names:
        one, other = found[name][carried], sent[name][carried]
        if one.ndim == 2:  # below full mode a book may be there in part, such as its best level alone
            whole = (found["flags"][carried] & MODE_MASK) >= Mode.FULL
            other = np.where(whole[:, None] | (np.nan_to_num(one) != 0), other, one)
        if name.endswith("_ns"):
            close = np.abs(one - other) < NS
        elif one.dtype.kind == "f":
            close = np.isclose(one, other, rtol=1e-12, atol=_PAISA if name in _ROUNDED else 1e-6, equal_nan=True)
            # An empty level of the book is NaN for us, and 0 on most wires.
            close |= np.isnan(one) & (other == 0) | np.isnan(other) & (one == 0)
        else:
            close = one == other
        if not close.all():
            place = int(np.flatnonzero(~close.reshape(len(one), -1).all(axis=1))[0])
            problems.append(f"{name} is {one[place]}, not {other[place]}")
    return problems


class ParserChecks(VendorCase):
    """What the broker sends is what the rows say."""

    def _lined(self, bench: Bench, mode: Mode) -> Talk:
        return bench.opened(bench.subscription(mode))

    def test_rows_hold_what_the_broker_sent(self) -> None:
        with self.bench() as bench:
            for mode in self.modes:
                parser = (talk := self._lined(bench, mode)).parser()
                for _ in range(5):
                    sent = bench.rows()
                    found = parsed(parser, talk.frames(sent))
                    assert list(found.bad) == []
                    assert found.rows["instrument"].tolist() == sent["instrument"].tolist()
                    assert alike(found.rows, sent) == [], f"in mode {mode.word}"

    def test_prices_are_rupees(self) -> None:
        with self.bench() as bench:
            parser = (talk := self._lined(bench, self.modes[-1])).parser()
            sent = bench.rows()
            ratio = parsed(parser, talk.frames(sent)).rows["last_price"] / sent["last_price"]
            wrong = {bench.instruments[line].key: float(one) for line, one in enumerate(ratio) if abs(one - 1) > 1e-6}
            assert wrong == {}, "last_price is off by these factors"

    def test_group_bits_say_what_a_row_carries(self) -> None:
        absent = empty_ticks(1)[0]
        with self.bench() as bench:
            for mode in self.modes:
                found = parsed((talk := self._lined(bench, mode)).parser(), talk.frames(bench.rows())).rows
                for flag, fields in FLAG_GROUPS.items():
                    without = found[(found["flags"] & flag) == 0]
                    for name in fields:
                        same = np.array_equal(
                            without[name],
                            np.broadcast_to(absent[name], without[name].shape),
                            equal_nan=without[name].dtype.kind == "f",
                        )
                        assert same, f"{name} is set, and the bit {flag.name} is not ({mode.word})"

    def test_a_higher_mode_carries_no_less(self) -> None:
        with self.bench() as bench:
            groups = []
            for mode in sorted(self.modes):
                found = parsed((talk := self._lined(bench, mode)).parser(), talk.frames(bench.rows())).rows
                groups.append(found["flags"] & ~np.uint32(MODE_MASK))
            for lower, higher in pairwise(groups):
                assert ((lower & ~higher) == 0).all()

    def test_full_mode_carries_the_book(self) -> None:
        if Mode.FULL not in self.modes:
            return
        with self.bench() as bench:
            sent = bench.rows()
            found = parsed((talk := self._lined(bench, Mode.FULL)).parser(), talk.frames(sent)).rows
            has = (sent["flags"] & Flag.DEPTH) > 0
            assert ((found["flags"][has] & Flag.DEPTH) > 0).all()

    def test_each_row_tells_its_mode(self) -> None:
        with self.bench() as bench:
            for mode in self.modes:
                found = parsed((talk := self._lined(bench, mode)).parser(), talk.frames(bench.rows())).rows
                told = {int(one) for one in found["flags"] & MODE_MASK}
                assert told <= {int(one) for one in Mode}, f"no mode: {told}"
                assert max(told) <= self.on_wire(mode), f"{told} in a subscription for {mode.word}"

    def test_validation_bits_are_left_to_the_core(self) -> None:
        with self.bench() as bench:
            found = parsed((talk := self._lined(bench, self.modes[-1])).parser(), talk.frames(bench.rows())).rows
            assert not (found["flags"] & np.uint32(REASON_MASK)).any()
            assert not found["check"].any()

    def test_times_are_utc(self) -> None:
        with self.bench() as bench:
            found = parsed((talk := self._lined(bench, self.modes[-1])).parser(), talk.frames(bench.rows())).rows
            now = bench.box.world.now_ns()
            for flag, name in _TIMES.items():
                times = found[name][(found["flags"] & flag) > 0]
                ages = (now - times) / NS
                assert (ages > -2).all(), f"{name} lies {-ages.min():.0f} s ahead (India time is 19,800 s ahead of UTC)"
                assert (ages < 600).all(), f"{name} lies {ages.max():.0f} s back"

    def test_received_ns_is_that_of_the_frame(self) -> None:
        with self.bench() as bench:
            talk = self._lined(bench, self.modes[-1])
            frames = talk.frames(bench.rows([0, 1])) + talk.frames(
                bench.rows([2]), received_ns=bench.box.world.now_ns() + 77
            )
            expected = [row.received_ns for row in frames for _ in range(len(bench.parser()([row]).rows))]
            assert parsed(bench.parser(), frames).rows["received_ns"].tolist() == expected

    def test_an_unknown_token_is_minus_one(self) -> None:
        with self.bench() as bench:
            known = bench.token_map(bench.instruments[:3])
            talk = self._lined(bench, self.modes[-1])
            sent = bench.rows(range(6))
            found = parsed(talk.parser(known), talk.frames(sent)).rows
            assert found["instrument"].tolist() == [0, 1, 2, -1, -1, -1]
            assert alike(found, sent) == [], "the values of an unknown token are as good as any"

    def test_numbers_come_from_the_token_map(self) -> None:
        with self.bench() as bench:
            numbers = {one.token: 1000 - line for line, one in enumerate(bench.instruments)}
            found = parsed(
                (talk := self._lined(bench, self.modes[-1])).parser(TokenMap(numbers)), talk.frames(bench.rows())
            ).rows
            assert found["instrument"].tolist() == [1000 - line for line in range(len(numbers))]

    def test_a_token_that_is_added_later_is_known(self) -> None:
        with self.bench() as bench:
            tokens = bench.token_map(bench.instruments[:1])
            parser = (talk := self._lined(bench, self.modes[-1])).parser(tokens)
            parsed(parser, talk.frames(bench.rows([0, 1])))
            tokens.add({bench.instruments[1].token: 7})
            assert parsed(parser, talk.frames(bench.rows([0, 1]))).rows["instrument"].tolist() == [0, 7]

    def test_a_token_with_a_new_number_gets_it(self) -> None:
        with self.bench() as bench:
            tokens = bench.token_map(bench.instruments[:2])
            parser = (talk := self._lined(bench, self.modes[-1])).parser(tokens)
            parsed(parser, talk.frames(bench.rows([0, 1])))
            tokens.add({bench.instruments[0].token: 7})  # the day's master has another entry for it
            assert parsed(parser, talk.frames(bench.rows([0, 1]))).rows["instrument"].tolist() == [7, 1]

    def test_rows_are_private_and_writeable(self) -> None:
        with self.bench() as bench:
            parser = (talk := self._lined(bench, self.modes[-1])).parser()
            frames = talk.frames(bench.rows())
            first = parsed(parser, frames).rows
            assert first.dtype == TICK
            kept = first.tobytes()
            second = parsed(parser, talk.frames(bench.rows())).rows
            assert not np.shares_memory(first, second), "two calls gave the same memory"
            assert first.tobytes() == kept, "a later call changed earlier rows"
            second["last_price"] = 1.0  # raises where they are a view of the frame
            third = parsed(parser, talk.frames(sent := bench.rows())).rows
            assert alike(third, sent) == [], "what a consumer wrote came back"

    def test_no_frames_are_no_rows(self) -> None:
        with self.bench() as bench:
            found = parsed(bench.parser(), [])
            assert len(found.rows) == 0
            assert found.rows.dtype == TICK
            assert list(found.bad) == []

    def test_frames_one_by_one_give_the_same_as_together(self) -> None:
        with self.bench() as bench:
            for mode in self.modes:
                talk = self._lined(bench, mode)
                frames = [frame for _ in range(4) for frame in talk.frames(bench.rows())]
                together = parsed(bench.parser(), frames).rows
                parser = bench.parser()
                single = np.concatenate([parsed(parser, [frame]).rows for frame in frames])
                assert single.tobytes() == together.tobytes()

    def test_repeated_frames_are_repeated_rows(self) -> None:
        with self.bench() as bench:
            talk = self._lined(bench, self.modes[-1])
            parser = talk.parser()
            frames = talk.frames(sent := bench.rows())
            found = parsed(parser, [*frames, *frames])
            assert list(found.bad) == []
            assert alike(found.rows[len(sent) :], sent) == []

    def test_a_new_parser_knows_nothing_of_the_last_one(self) -> None:
        with self.bench() as bench:
            talk = self._lined(bench, self.modes[-1])
            whole, later = talk.frames(bench.rows()), talk.frames(bench.rows())
            fresh = parsed(bench.parser(), later)
            used = bench.parser()
            parsed(used, whole)
            again = parsed(bench.parser(), later)
            assert again.rows.tobytes() == fresh.rows.tobytes(), "state of one socket reached the next one"
            assert len(again.bad) == len(fresh.bad)

    def test_parsers_of_two_connections_share_nothing(self) -> None:
        with self.bench() as bench:
            one, other = (self._lined(bench, self.modes[-1]) for _ in range(2))
            first, second = one.parser(), other.parser()
            for _ in range(3):
                for talk, parser in ((one, first), (other, second)):
                    sent = bench.rows()
                    assert alike(parsed(parser, talk.frames(sent)).rows, sent) == []

    def test_captured_frames_are_read(self) -> None:
        frames = self.captured()
        with self.bench() as bench:
            parser = bench.parser(TokenMap())
            for frame in frames:
                found = parsed(parser, [frame])
                assert list(found.bad) == [], f"a frame of the real broker: {frame.data!r:.200}"
                assert (found.rows["received_ns"] == frame.received_ns).all()
                prices = found.rows["last_price"]
                assert (np.isnan(prices) | ((prices > 0) & (prices < 1e7))).all(), f"no prices: {prices}"


class DamageChecks(VendorCase):
    """Frames that are not what they should be."""

    def _frames(self, bench: Bench, count: int = 3) -> tuple[list[Frame], Rows]:
        talk = bench.opened(bench.subscription(self.modes[-1]))
        sent = bench.rows(range(count))
        return talk.frames(sent), sent

    def _around(self, bench: Bench, damaged: Sequence[Frame]) -> None:
        """Damaged frames raise nothing and cost no row of intact ones around them."""
        talk = bench.opened(bench.subscription(self.modes[-1]))
        parser = talk.parser()
        before, after = bench.rows(), bench.rows()
        assert alike(parsed(parser, talk.frames(before)).rows, before) == []
        parsed(parser, damaged)
        talk.forget()
        last = talk.frames(after)
        found = parsed(parser, [*damaged, *last]).rows
        assert alike(found[len(found) - len(after) :], after) == [], "damage reached the frame after it"

    def test_a_frame_cut_anywhere_raises_nothing(self) -> None:
        with self.bench() as bench:
            frames, _ = self._frames(bench)
            for frame in frames[:3]:
                for end in range(len(frame.data)):
                    parsed(bench.parser(), [frame._replace(data=frame.data[:end])])

    def test_a_cut_frame_is_reported(self) -> None:
        with self.bench() as bench:
            frames, _ = self._frames(bench)
            last = frames[-1]._replace(data=frames[-1].data[: len(frames[-1].data) * 2 // 3])
            found = parsed(bench.parser(), [*frames[:-1], last])
            assert [bad.frame for bad in found.bad] == [len(frames) - 1], "exactly the cut frame is bad"

    def test_a_cut_frame_costs_no_other(self) -> None:
        with self.bench() as bench:
            frames, _ = self._frames(bench)
            self._around(bench, [frame._replace(data=frame.data[: len(frame.data) * 2 // 3]) for frame in frames])

    def test_a_split_frame_raises_nothing(self) -> None:
        with self.bench() as bench:
            frames, _ = self._frames(bench)
            halves = []
            for frame in frames:
                middle = len(frame.data) // 2
                halves += [frame._replace(data=frame.data[:middle]), frame._replace(data=frame.data[middle:])]
            parsed(bench.parser(), halves)
            self._around(bench, halves)

    def test_joined_frames_raise_nothing(self) -> None:
        with self.bench() as bench:
            frames, _ = self._frames(bench)
            joined = frames[0]._replace(data=b"".join(frame.data for frame in frames) * 2)
            parsed(bench.parser(), [joined])
            self._around(bench, [joined])

    def test_trailing_bytes_raise_nothing(self) -> None:
        with self.bench() as bench:
            frames, _ = self._frames(bench)
            for extra in (b"\0", b"\xff" * 7, b" ", b"{}", frames[0].data[:5]):
                self._around(bench, [frame._replace(data=frame.data + extra) for frame in frames])

    def test_random_bytes_raise_nothing(self) -> None:
        chance = random.Random(2)
        with self.bench() as bench:
            parser = bench.parser()
            at = bench.box.world.now_ns()
            for _ in range(2000):
                parsed(parser, [frame_of(chance.randbytes(chance.randrange(400)), at)])
            self._around(bench, [frame_of(chance.randbytes(chance.randrange(400)), at) for _ in range(50)])

    def test_changed_bytes_raise_nothing(self) -> None:
        chance = random.Random(3)
        with self.bench() as bench:
            frames, _ = self._frames(bench)
            parser = bench.parser()
            for _ in range(3000):
                frame = chance.choice(frames)
                data = bytearray(frame.data)
                for _ in range(chance.randrange(1, 4)):
                    data[chance.randrange(len(data))] = chance.choice(
                        (0, 1, 0x2D, 0x7F, 0x80, 0xFF, chance.randrange(256))
                    )
                parsed(parser, [frame._replace(data=bytes(data))])

    def test_empty_and_tiny_frames_are_no_rows(self) -> None:
        with self.bench() as bench:
            for data in (b"", b"\0", b"\n", b"h"):
                assert len(parsed(bench.parser(), [frame_of(data, 1)]).rows) == 0

    def test_text_of_another_kind_raises_nothing(self) -> None:
        texts = [
            "null",
            "[]",
            "{}",
            '"text"',
            "1e999",
            "[" * 5000,
            '{"t":[]}',
            '{"t":{}}',
            "\ud7ff" * 50,
            "<html></html>",
        ]
        with self.bench() as bench:
            parsed(bench.parser(), [frame_of(text, 1) for text in texts])
            self._around(bench, [frame_of(text, bench.box.world.now_ns()) for text in texts])
