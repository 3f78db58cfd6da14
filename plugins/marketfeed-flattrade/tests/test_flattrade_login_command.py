"""``marketfeed login flattrade`` in a process of its own, against the sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from marketfeed.clock import NS
from marketfeed.plugins import Plugins
from marketfeed.sandbox import Sandbox, totp

pytestmark = pytest.mark.process
Run = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """
[feeds.main]
vendor = "flattrade"
instruments = ["NSE:INFY"]
sinks = ["stdout"]
[sinks.stdout]
[vendors.flattrade]
login_url = "{url}"
user_id = "{account.user_id}"
api_key = "{account.api_key}"
api_secret = "{account.api_secret}"
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox("flattrade", access_token=None, ticks_per_second=0, instruments=5) as one:
        yield one


@pytest.fixture
def run(box: Sandbox, tmp_path: Path) -> Run:
    config = tmp_path / "feed.toml"

    def start(*options: str, given: str = "", more: str = "") -> subprocess.CompletedProcess[str]:
        config.write_text(CONFIG.format(url=box.url, account=box.world.credentials) + more)
        command = [sys.executable, "-m", "marketfeed", "login", "flattrade", "--config", str(config), *options]
        environ = {**os.environ, "MARKETFEED_STATE_DIR": str(tmp_path)}
        return subprocess.run(command, input=given, env=environ, capture_output=True, text=True, timeout=60)

    return start


def kept(folder: Path) -> list[str]:
    """The tokens on disk."""
    return [json.loads(file.read_text())["access_token"] for file in folder.glob("tokens/*.json")]


def test_the_address_that_the_browser_ends_at_is_pasted(box: Sandbox, run: Run, tmp_path: Path) -> None:
    account = box.world.credentials
    code = totp(account.totp_secret, box.world.now_ns() // NS)
    form = {"user_id": account.user_id, "password": account.password, "totp": code}
    page = f"{box.url}/?app_key={account.api_key}"
    redirect = requests.post(page, data=form, allow_redirects=False, timeout=10).headers["Location"]
    result = run("--port", "0", given=redirect)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"https://auth.flattrade.in/?app_key={account.api_key}\n"
    (token,) = kept(tmp_path)
    assert token not in result.stdout + result.stderr
    again = run("--port", "0", given=redirect)  # a code is good once
    assert again.returncode == 3
    assert "INVALID_REQUEST_CODE" in again.stderr
    assert kept(tmp_path) == [token]


def test_the_automatic_login_needs_no_page(box: Sandbox, run: Run, tmp_path: Path) -> None:
    account = box.world.credentials
    more = f'automatic_login = true\npassword = "{account.password}"\ntotp_secret = "{account.totp_secret}"\n'
    result = run(more=more)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert len(kept(tmp_path)) == 1
    wrong = run("--url", more=more)
    assert wrong.returncode == 2
    assert "without a browser" in wrong.stderr


def test_a_vendor_without_a_login_page_says_so() -> None:
    plugin = Plugins.discover().vendor("mstock")
    assert plugin.login_page(plugin.info.settings()) is None
