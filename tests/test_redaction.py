"""Secrets in text, also where a pattern would end in the middle of one."""

from __future__ import annotations

import pytest

from marketfeed.redaction import clean


@pytest.mark.parametrize(
    ("text", "secrets", "shown"),
    [
        ("proxy http://u:p@ssw0rd@h:1 refused", ["p@ssw0rd"], "proxy http://***@h:1 refused"),
        ("proxy http://u:p@ssw0rd@h:1 refused", [], "proxy http://***@h:1 refused"),
        ("?password=ab&cdSECRET9", ["ab&cdSECRET9"], "?password=***"),
        ("see http://host/a@b and mail to me@example.com", [], "see http://host/a@b and mail to me@example.com"),
        ("api_key=abcdef&x=1", [], "api_key=***&x=1"),
    ],
)
def test_nothing_of_a_secret_stays(text: str, secrets: list[str], shown: str) -> None:
    assert clean(text, secrets) == shown
