"""Authenticator codes."""

from __future__ import annotations

import pytest

from marketfeed.totp import totp


@pytest.mark.parametrize(
    ("at_s", "code"),
    [(59, "287082"), (1_111_111_109, "081804"), (2_000_000_000, "279037"), (20_000_000_000, "353130")],
)
def test_codes_are_those_of_rfc_6238(at_s: int, code: str) -> None:
    assert totp("GEZD GNBV GY3T QOJQ-gezdgnbvgy3tqojq", at_s) == code


def test_a_secret_of_sixteen_letters_as_brokers_give_is_taken() -> None:
    assert len(totp("JBSWY3DPEHPK3PXP", 0)) == 6


@pytest.mark.parametrize("secret", ["", "not!base32", "8888"])
def test_what_is_no_secret_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(ValueError) as caught:
        totp(secret, 0)
    assert not secret or secret not in str(caught.value)
