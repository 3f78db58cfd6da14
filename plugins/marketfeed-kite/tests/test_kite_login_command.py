"""``marketfeed login kite`` in a process of its own, against the sandbox: one click, one paste, one pipe."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from marketfeed_kite import KiteSettings
from marketfeed_kite.auth import login_page

from marketfeed.clock import NS
from marketfeed.errors import AuthError
from marketfeed.feed import Feed
from marketfeed.history import Historical
from marketfeed.sandbox import Sandbox, totp
from marketfeed.tokens import FileTokenStore

pytestmark = pytest.mark.process

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:INFY"]
sinks = ["stdout"]
[sinks.stdout]
[vendors.kite]
login_url = "{url}"
rest_url = "{url}"
stream_url = "{stream}"
user_id = "{user}"
api_key = {{ env = "KITE_API_KEY" }}
api_secret = {{ env = "KITE_API_SECRET" }}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Desk:
    """A person with a browser and a terminal, and the broker."""

    def __init__(self, box: Sandbox, folder: Path, port: int) -> None:
        self.box = box
        self.port = port
        self.children: list[subprocess.Popen[str]] = []
        self.state = folder / "state"
        self.config = folder / "feed.toml"
        account = box.world.credentials
        text = CONFIG.format(url=box.url, stream=box.url.replace("http", "ws"), user=account.user_id)
        self.config.write_text(text)
        secrets = {"KITE_API_KEY": account.api_key, "KITE_API_SECRET": account.api_secret}
        self.environ = {**os.environ, "MARKETFEED_STATE_DIR": str(self.state), **secrets}

    def start(self, *options: str) -> subprocess.Popen[str]:
        """The command, with pipes for all three streams."""
        command = [sys.executable, "-m", "marketfeed", "login", "kite", "--config", str(self.config), *options]
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, env=self.environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.children.append(child)
        return child

    def leave(self) -> None:
        """End what a failed test left behind."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.communicate()

    def run(self, *options: str, given: str = "") -> subprocess.CompletedProcess[str]:
        child = self.start(*options)
        out, errors = child.communicate(given, timeout=60)
        return subprocess.CompletedProcess(child.args, child.returncode, out, errors)

    def log_in(self, address: str) -> str:
        """What a person does in the browser; returns the address that it is sent to in the end."""
        account = self.box.world.credentials
        code = totp(account.totp_secret, self.box.world.now_ns() // NS)
        form = {"user_id": account.user_id, "password": account.password, "totp": code}
        with requests.Session() as browser:
            reply = browser.post(address, data=form, allow_redirects=False)
            while reply.headers["Location"].startswith("/"):
                reply = browser.get(self.box.url + reply.headers["Location"], allow_redirects=False)
            return reply.headers["Location"]

    def redirect(self) -> str:
        settings = KiteSettings(api_key=self.box.world.credentials.api_key, login_url=self.box.url)
        return self.log_in(login_page(settings))

    def kept(self) -> dict[str, str] | None:
        """The stored session."""
        files = list(self.state.glob("tokens/*.json"))
        assert len(files) <= 1
        content: dict[str, str] | None = json.loads(files[0].read_text()) if files else None
        return content

    def profile(self, access_token: str) -> int:
        """The broker's answer to that token."""
        headers = {"Authorization": f"token {self.box.world.credentials.api_key}:{access_token}"}
        return requests.get(f"{self.box.url}/user/profile", headers=headers, timeout=10).status_code


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    port = free_port()
    address = f"http://127.0.0.1:{port}/kite/redirect?app=1"
    with Sandbox("kite", instruments=5, access_token=None, ticks_per_second=20, redirect_url=address) as box:
        desk = Desk(box, tmp_path, port)
        yield desk
        desk.leave()


def token_of(redirect: str) -> str:
    return parse_qs(urlsplit(redirect).query)["request_token"][0]


def assert_logged_in(desk: Desk, result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stderr
    kept = desk.kept()
    assert kept is not None
    assert desk.profile(kept["access_token"]) == 200
    assert kept["access_token"] not in result.stdout + result.stderr
    assert "logged in" in result.stderr


def test_the_address_that_the_browser_ends_at_is_pasted(desk: Desk) -> None:
    redirect = desk.redirect()
    result = desk.run("--no-browser", "--port", "0", given=redirect + "\n")
    assert_logged_in(desk, result)
    assert token_of(redirect) not in result.stdout + result.stderr
    (file,) = desk.state.glob("tokens/*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_bare_token_is_pasted_after_a_wrong_address(desk: Desk) -> None:
    token = token_of(desk.redirect())
    result = desk.run("--port", "0", given=f"https://kite.zerodha.com/dashboard\n{token}")
    assert_logged_in(desk, result)
    assert "no request_token in that" in result.stderr


def test_the_browser_brings_the_token_by_itself(desk: Desk) -> None:
    child = desk.start("--port", str(desk.port))
    assert child.stdout is not None
    redirect = desk.log_in(child.stdout.readline().strip())
    assert urlsplit(redirect).port == desk.port
    words = Path(f"/proc/{child.pid}/cmdline").read_bytes() if Path("/proc").is_dir() else b""
    nothing = requests.get(f"http://127.0.0.1:{desk.port}/favicon.ico", timeout=10)
    page = requests.get(redirect, timeout=10)
    out, errors = child.communicate(timeout=60)
    assert (nothing.status_code, page.status_code) == (404, 200)
    assert "close this window" in page.text
    assert token_of(redirect) not in page.text + out + errors
    assert token_of(redirect).encode() not in words
    assert_logged_in(desk, subprocess.CompletedProcess([], child.returncode, out, errors))


def test_a_script_reads_the_address_and_writes_the_token(desk: Desk) -> None:
    child = desk.start("--url")
    assert child.stdout is not None
    redirect = desk.log_in(child.stdout.readline().strip())
    out, errors = child.communicate(redirect, timeout=60)
    assert out == ""  # the address was all
    assert_logged_in(desk, subprocess.CompletedProcess([], child.returncode, out, errors))


def test_a_script_that_only_wants_the_address_gets_it(desk: Desk) -> None:
    result = desk.run("--url")
    assert (result.returncode, result.stderr) == (0, "")
    key = desk.box.world.credentials.api_key
    assert result.stdout == f"{desk.box.url}/connect/login?v=3&api_key={key}\n"
    assert desk.kept() is None


def test_a_wrong_token_is_refused_and_the_old_session_stays(desk: Desk) -> None:
    assert_logged_in(desk, desk.run("--port", "0", given=desk.redirect()))
    before = desk.kept()
    result = desk.run("--port", "0", given="WrongRequestToken123\n")
    assert result.returncode == 3
    assert "log in again for a new one" in result.stderr
    assert "WrongRequestToken123" not in result.stdout + result.stderr
    assert desk.kept() == before


def test_without_a_token_nothing_is_asked_of_the_broker(desk: Desk) -> None:
    result = desk.run("--port", "0")
    assert result.returncode == 1
    assert "no request_token was given" in result.stderr
    late = desk.run("--port", str(desk.port), "--timeout", "0.3")
    assert late.returncode == 1
    assert "nobody has logged in within 0.3 s" in late.stderr


def test_a_missing_secret_is_told_before_anybody_logs_in(desk: Desk) -> None:
    desk.config.write_text("\n".join(one for one in desk.config.read_text().splitlines() if "api_secret" not in one))
    del desk.environ["KITE_API_SECRET"]
    result = desk.run("--url")
    assert (result.returncode, result.stdout) == (3, "")
    assert "set KITE_API_SECRET" in result.stderr


def test_a_port_that_is_taken_leaves_the_paste(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", desk.port)):
        result = desk.run("--port", str(desk.port), given=desk.redirect())
    assert_logged_in(desk, result)
    assert f"port {desk.port} cannot be used" in result.stderr


def test_the_account_is_a_table_of_the_configuration(desk: Desk) -> None:
    second = '[vendors.second]\ntype = "kite"\napi_key = "other"\napi_secret = "x"\n'
    desk.config.write_text(desk.config.read_text() + second)
    result = desk.run("--url", "--account", "second")
    assert result.stdout.endswith("api_key=other\n")
    wrong = desk.run("--url", "--account", "third")
    assert wrong.returncode == 2
    assert "kite, second" in wrong.stderr


# --- the next day -----------------------------------------------------------------------------


def history(desk: Desk) -> Historical:
    known = {name: value for name, value in desk.box.settings().items() if name != "access_token"}
    return Historical("kite", settings=known, tokens=FileTokenStore(desk.state))


def test_after_the_daily_expiry_a_new_login_is_all_that_is_needed(desk: Desk) -> None:
    span = ("NSE:INFY", "1d", "2026-11-01", "2026-11-20")
    assert_logged_in(desk, desk.run("--port", "0", given=desk.redirect()))
    with history(desk) as past:
        past.candles(*span)
    desk.box.expire()
    with history(desk) as past, pytest.raises(AuthError, match="marketfeed login kite"):  # 403, and nobody is there
        past.candles(*span)
    assert desk.kept() is None  # a dead token is not tried twice
    assert_logged_in(desk, desk.run("--port", "0", given=desk.redirect()))
    with history(desk) as past:
        past.candles(*span)


def test_a_program_that_runs_takes_the_session_of_a_login_beside_it(desk: Desk) -> None:
    assert_logged_in(desk, desk.run("--port", "0", given=desk.redirect()))
    with history(desk) as past:
        past.candles("NSE:INFY", "1d", "2026-11-01", "2026-11-20")
        assert_logged_in(desk, desk.run("--port", "0", given=desk.redirect()))  # the broker ends the first token
        kept = desk.kept()
        past.candles("NSE:INFY", "1d", "2026-11-01", "2026-11-20")
    assert desk.kept() == kept


def feed_of(desk: Desk) -> Feed:
    known = {name: value for name, value in desk.box.settings().items() if name != "access_token"}
    return Feed("kite", instruments=["NSE:INFY"], settings=known, tokens=FileTokenStore(desk.state))


def test_a_feed_that_is_refused_goes_on_with_the_session_of_a_login_beside_it(desk: Desk) -> None:
    assert_logged_in(desk, desk.run("--port", "0", given=desk.redirect()))
    with feed_of(desk) as feed:
        ticks = (tick for batch in feed for tick in batch)
        next(ticks)
        desk.box.expire()  # open connections stay
        assert_logged_in(desk, desk.run("--port", "0", given=desk.redirect()))
        desk.box.drop()  # the reconnect meets 403 with the old token
        next(tick for tick in ticks if desk.box.counts["connections"] == 2)
        again_ns = time.time_ns()
        assert any(tick.received_ns > again_ns for tick in ticks)  # over the new connection: the old one is gone
    kept = desk.kept()
    assert kept is not None
    assert desk.profile(kept["access_token"]) == 200


def test_a_feed_that_is_refused_and_alone_stops_and_says_what_to_do(desk: Desk) -> None:
    assert_logged_in(desk, desk.run("--port", "0", given=desk.redirect()))
    feed = feed_of(desk)
    feed.start()
    batches = iter(feed)
    next(batches)
    desk.box.expire()
    desk.box.drop()
    with pytest.raises(AuthError, match="marketfeed login kite"):
        list(batches)
    feed.stop()
