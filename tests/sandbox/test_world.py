"""Clock, account and options of a sandbox."""

from __future__ import annotations

import time
from datetime import date

import pytest

from marketfeed.brokers import Credentials
from marketfeed.clock import ist_text
from marketfeed.sandbox.history import trading_day
from marketfeed.sandbox.world import Options, World
from marketfeed.totp import totp


def test_the_code_of_either_clock_is_right_for_a_minute_and_a_half() -> None:
    world = World(Options(instruments=3, start="2026-11-20 10:00:00"))
    secret = world.credentials.totp_secret
    assert world.totp_is_right(totp(secret, int(time.time())))
    assert world.totp_is_right(totp(secret, world.now_ns() // 10**9))
    assert not world.totp_is_right("")
    stale = {totp(secret, int(time.time()) - 600), totp(secret, world.now_ns() // 10**9 - 600)}
    assert [world.totp_is_right(code) for code in stale].count(True) == 0


def test_the_clock_starts_at_ten_on_a_weekday() -> None:
    text = ist_text(World(Options(instruments=3)).now_ns())
    assert text[11:16] == "10:00"
    assert date.fromisoformat(text[:10]).weekday() < 5


@pytest.mark.parametrize(
    ("today", "wanted"),
    [("2026-11-20", "2026-11-20"), ("2026-11-21", "2026-11-20"), ("2026-11-22", "2026-11-20")],
)
def test_on_a_weekend_it_is_friday(today: str, wanted: str) -> None:
    assert trading_day(date.fromisoformat(today)) == date.fromisoformat(wanted)


def test_the_account_is_as_documented() -> None:
    account = Credentials()
    assert (account.user_id, account.password, account.totp_secret) == ("TEST01", "test-pass-1", "JBSWY3DPEHPK3PXP")
    assert (account.api_key, account.api_secret, account.access_token) == ("testkey", "testsecret", None)


@pytest.mark.parametrize(
    "wrong",
    [{"speed": 0}, {"step_s": 0}, {"ticks_per_second": -1}, {"replay_order": "price"}, {"replay_start": "never"}],
)
def test_impossible_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)  # type: ignore[arg-type]
