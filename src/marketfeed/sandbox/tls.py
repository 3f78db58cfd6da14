"""Certificates for a sandbox with TLS, made on the spot by an authority that nobody else trusts."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme

__all__ = ["TLS", "CertificateBox"]

TLS = ("good", "self-signed", "wrong-host", "expired")
_HOSTS = ("127.0.0.1", "localhost")


class CertificateBox:
    """Implements :class:`marketfeed.sandbox.faults.base.Certificates`. Needs the package ``trustme``.

    Raises ``ValueError`` when it is not installed or ``name`` is not one of :data:`TLS`.
    """

    def __init__(self, name: str) -> None:
        try:
            import trustme
        except ImportError:
            raise ValueError("a sandbox with TLS needs trustme; install marketfeed[sandbox-tls]") from None
        self._authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.show(name)

    @property
    def ca_pem(self) -> bytes:
        """The authority's certificate, for a client that is to trust it."""
        return self._authority.cert_pem.bytes()

    def show(self, name: str) -> None:
        """Use this certificate for every handshake from now on."""
        import trustme

        if name not in TLS:
            raise ValueError(f"tls is {name!r}; choose {', '.join(TLS)}")
        if name == "self-signed":
            itself = trustme.CA()  # an authority's own certificate is signed by itself
            both = trustme.Blob(itself.private_key_pem.bytes() + itself.cert_pem.bytes())
            with both.tempfile() as path:
                self.context.load_cert_chain(path)
            return
        self._issued(name).configure_cert(self.context)

    def _issued(self, name: str) -> trustme.LeafCert:
        if name == "wrong-host":
            return self._authority.issue_cert("another-host.invalid")
        if name == "expired":
            now = datetime.now(UTC)
            return self._authority.issue_cert(*_HOSTS, not_before=now - timedelta(9), not_after=now - timedelta(1))
        return self._authority.issue_cert(*_HOSTS)
