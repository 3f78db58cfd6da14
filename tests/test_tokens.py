"""Access tokens on disk: private, whole, and gone when asked; failed logins counted over restarts."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from marketfeed.contract import Session
from marketfeed.tokens import FileTokenStore, LenientTokenStore, MemoryTokenStore, TokenKeeper, state_dir

SESSION = Session(vendor="kite", account="AB1234", access_token="t0ken", expires_ns=7, extra={"feed": "f"})
posix = pytest.mark.skipif(os.name != "posix", reason="Windows keeps rights elsewhere")


@pytest.fixture(params=["file", "memory", "lenient", "lenient without a folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TokenKeeper:
    (tmp_path / "file").touch()
    return {
        "file": lambda: FileTokenStore(tmp_path),
        "memory": MemoryTokenStore,
        "lenient": lambda: LenientTokenStore(FileTokenStore(tmp_path)),
        "lenient without a folder": lambda: LenientTokenStore(FileTokenStore(tmp_path / "file")),
    }[request.param]()


def test_a_session_is_kept_per_vendor_and_account(store: TokenKeeper) -> None:
    store.save(SESSION)
    assert store.load("kite", "AB1234") == SESSION
    assert store.load("kite", "ZZ0000") is None
    assert store.load("mstock", "AB1234") is None


def test_a_forgotten_session_is_gone_and_may_be_forgotten_again(store: TokenKeeper) -> None:
    store.save(SESSION)
    store.forget("kite", "AB1234")
    store.forget("kite", "AB1234")
    assert store.load("kite", "AB1234") is None


def test_failed_logins_are_counted_by_time(store: TokenKeeper) -> None:
    for at in (100, 200, 300):
        store.count_failure("kite", "AB1234", at)
    assert store.failures_since("kite", "AB1234", 200) == 2
    assert store.failures_since("kite", "AB1234", 301) == 0
    assert store.failures_since("kite", "other", 0) == 0
    store.forgive("kite", "AB1234")
    assert store.failures_since("kite", "AB1234", 0) == 0


def test_sessions_and_failures_outlive_the_process(tmp_path: Path) -> None:
    FileTokenStore(tmp_path).save(SESSION)
    FileTokenStore(tmp_path).count_failure("kite", "AB1234", 5)
    assert FileTokenStore(tmp_path).load("kite", "AB1234") == SESSION
    assert FileTokenStore(tmp_path).failures_since("kite", "AB1234", 0) == 1


def test_the_file_of_failures_does_not_grow_for_ever(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    for at in range(1000):
        store.count_failure("kite", "AB1234", at)
    assert 200 <= store.failures_since("kite", "AB1234", 0) <= 401
    assert store.failures_since("kite", "AB1234", 999) == 1


@posix
def test_only_the_owner_can_read(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = FileTokenStore(tmp_path / "state")
        store.save(SESSION)
        store.count_failure("kite", "AB1234", 1)
    finally:
        os.umask(old)
    folder = tmp_path / "state" / "tokens"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


@posix
def test_a_file_that_others_may_read_is_not_used_until_the_next_login(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FileTokenStore(tmp_path)
    store.save(SESSION)
    (file,) = (tmp_path / "tokens").iterdir()
    file.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        assert store.load("kite", "AB1234") is None
    assert "others may read it (mode 0640)" in caplog.text
    store.save(SESSION)
    assert store.load("kite", "AB1234") == SESSION


@posix
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    store.save(SESSION)
    (file,) = (tmp_path / "tokens").iterdir()
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert store.load("kite", "AB1234") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"vendor": "kite"}', '{"unknown": 1}', "\x00\xff"])
def test_a_damaged_file_is_a_missing_session(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FileTokenStore(tmp_path)
    store.save(SESSION)
    (file,) = (tmp_path / "tokens").iterdir()
    file.write_bytes(text.encode("latin-1"))
    assert store.load("kite", "AB1234") is None
    assert "t0ken" not in caplog.text


@pytest.mark.parametrize("account", ["../../etc/passwd", "a/b", "", "x" * 500, "नाम", "a\0b", "CON"])
def test_any_account_is_safe_as_a_file_name_and_not_shown_in_it(account: str, tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    session = Session(vendor="../kite", account=account, access_token="t")
    store.save(session)
    assert store.load("../kite", account) == session
    (file,) = (tmp_path / "tokens").iterdir()
    assert not account or account not in file.name


def test_nothing_is_left_behind_by_a_save(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    for _ in range(3):
        store.save(SESSION)
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_the_state_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETFEED_STATE_DIR", str(tmp_path / "here"))
    FileTokenStore().save(SESSION)
    assert (tmp_path / "here" / "tokens").is_dir()
    monkeypatch.delenv("MARKETFEED_STATE_DIR")
    assert "marketfeed" in str(state_dir())


def test_a_session_does_not_show_its_token() -> None:
    assert "t0ken" not in repr(SESSION)


def test_one_login_at_a_time(store: TokenKeeper) -> None:
    inside: list[int] = []
    most: list[int] = []

    def log_in() -> None:
        with store.alone("kite", "AB1234"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=log_in) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 5
    assert max(most) == 1


def test_a_dead_session_that_cannot_be_removed_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FileTokenStore(tmp_path)
    files.save(SESSION)
    store = LenientTokenStore(files)

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    store.forget("kite", "AB1234")
    assert files.load("kite", "AB1234") == SESSION
    assert store.load("kite", "AB1234") is None
