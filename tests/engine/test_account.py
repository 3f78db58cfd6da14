"""One account: who logs in when."""

from __future__ import annotations

from typing import Any

import pytest

from marketfeed.clock import ManualClock
from marketfeed.contract import Session, VendorSettings
from marketfeed.engine.account import Account
from marketfeed.engine.logs import get_log
from marketfeed.errors import SessionExpired
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.tokens import MemoryTokenStore


class Broker:
    """A plugin whose broker takes one token only; its logins give token-1, token-2, ..."""

    def __init__(self, good: str) -> None:
        self.good = good
        self.logins = 0
        self.info = type("Info", (), {"name": "test"})()

    def authenticate(self, settings: Any, tokens: Any, http: Any) -> Session:
        self.logins += 1
        return Session(vendor="test", account="me", access_token=f"token-{self.logins}")

    def instruments(self, settings: Any, session: Session, http: Any) -> InstrumentTable:
        if session.access_token != self.good:
            raise SessionExpired("this token is dead")
        return InstrumentTable([Instrument(exchange="NSE", symbol="INFY", token="1")])


def account_at(broker: Broker) -> Account:
    plugin: Any = broker
    http: Any = None
    return Account(plugin, VendorSettings(), MemoryTokenStore(), http, ManualClock(), get_log())


def test_a_token_that_died_overnight_costs_one_login_at_the_start() -> None:
    broker = Broker("token-2")
    account = account_at(broker)
    assert len(account.instruments()) == 1
    assert account.session().access_token == "token-2"
    assert broker.logins == 2


def test_a_token_that_is_dead_again_is_the_end() -> None:
    broker = Broker("never")
    with pytest.raises(SessionExpired):
        account_at(broker).instruments()
    assert broker.logins == 2


def test_connections_that_lost_the_same_session_share_one_login() -> None:
    broker = Broker("token-2")
    account = account_at(broker)
    dead = account.session()
    assert account.renew(dead) is account.renew(dead)
    assert broker.logins == 2
