"""``VendorContract``: what every vendor plugin must do, as a pytest class to subclass."""

from __future__ import annotations

from marketfeed.testing.vendor_basics import PluginChecks, SettingChecks
from marketfeed.testing.vendor_calls import CandleChecks, LoginChecks, MasterChecks
from marketfeed.testing.vendor_feed import FeedChecks
from marketfeed.testing.vendor_parser import DamageChecks, ParserChecks
from marketfeed.testing.vendor_stream import StreamChecks

__all__ = ["VendorContract"]


class VendorContract(
    PluginChecks,
    SettingChecks,
    StreamChecks,
    ParserChecks,
    DamageChecks,
    LoginChecks,
    MasterChecks,
    CandleChecks,
    FeedChecks,
):
    """Subclass it in a test file, with a name that begins with ``Test``, and name the vendor::

        class TestKite(VendorContract):
            vendor = "kite"
            wrong_login = {"api_secret": "wrong"}
            documentation = Path("docs/vendors/kite.md")

            def login(self, box):
                return {"request_token": log_in(box)}

    Nearly all of it runs against the plugin's own sandbox (hook ``marketfeed_sandbox``): the protocol without a
    socket, calls over HTTP on this machine, and whole feeds. Nothing leaves the machine.
    """
