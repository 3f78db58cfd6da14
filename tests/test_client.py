"""What history, quotes and instruments share: one account, asked without a feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from marketfeed import Historical, Instruments, Quotes
from marketfeed.errors import AuthError, ConfigError
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

ASK: dict[str, Callable[..., object]] = {
    "history": lambda **options: Historical(**options).candles("NSE:INFY", "1d", "2026-11-02", "2026-11-05"),
    "quotes": lambda **options: Quotes(**options).ltp("NSE:INFY"),
    "instruments": lambda **options: Instruments(**options).sync(),
}


@pytest.mark.parametrize("what", ASK)
def test_a_wrong_password_is_tried_ten_times_an_hour_at_most_by_however_many_notebooks(what: str) -> None:
    tokens = MemoryTokenStore()
    with Sandbox("mstock", dialect="a", instruments=4, log=True) as box:
        settings: dict[str, Any] = box.settings() | {"password": "wrong", "access_token": None}
        said = []
        for _ in range(12):
            with pytest.raises(AuthError) as caught:
                ASK[what](vendor="mstock", settings=settings, tokens=tokens)
            said.append(str(caught.value))
        logins = [one for one in box.records if "login" in str(one.get("path", ""))]
    assert len(logins) == 10
    assert "within an hour" in said[-1]


def test_what_is_not_there_is_said_for_all_names_at_once() -> None:
    with (
        Sandbox("kite", instruments=4) as box,
        Quotes("kite", settings=box.settings()) as quotes,
        pytest.raises(ConfigError) as caught,
    ):
        quotes.ltp(["NSE:NOBODY", "NSE:INFY", "NSE:NOTHING"])
    assert "NSE:NOBODY" in str(caught.value)
    assert "NSE:NOTHING" in str(caught.value)
