"""What a vendor plugin's author says about the plugin, and the means that the checks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from marketfeed.contract import Frame
from marketfeed.enums import Mode
from marketfeed.plugins import Plugins, VendorPlugin
from marketfeed.sandbox import Sandbox
from marketfeed.testing.bench import Bench

__all__ = ["START", "VendorCase"]

START = "2026-11-20 10:00:00"
"""India time at which the sandboxes of the checks begin: a trading day."""


class VendorCase:
    """The declarations and hooks of :class:`marketfeed.testing.VendorContract`. A subclass sets :attr:`vendor`,
    and then what else its vendor needs."""

    vendor: ClassVar[str]
    """The vendor's name, as in ``[vendors.NAME]``"""
    found: ClassVar[Plugins | None] = None
    """Where the plugin is, if it is not installed: ``Plugins.of(module)``"""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Settings above those that the plugin's sandbox hands out"""
    sandbox: ClassVar[Mapping[str, Any]] = {}
    """Options of the sandbox, such as ``{"dialect": "a"}``"""
    wrong_login: ClassVar[Mapping[str, Any]] = {}
    """Settings with which the broker refuses the login, such as ``{"api_secret": "wrong"}``"""
    wire_modes: ClassVar[Mapping[Mode, Mode]] = {}
    """Modes that the broker does not have: what is sent in their place"""
    documentation: ClassVar[str | Path] = ""
    """The text for users, or its file: every setting stands in it, in backquotes"""
    patience_s: ClassVar[float] = 30.0
    """How long a whole feed may take for what should take a second"""

    # --- hooks --------------------------------------------------------------------------------------

    def login(self, box: Sandbox) -> Mapping[str, Any]:
        """Settings for a login at this sandbox, which has no ready token; by default its own are enough.

        Where a person would log in with a browser, do it here and give the outcome.
        """
        return {}

    def captured(self) -> Sequence[Frame]:
        """Frames of the real broker, if there are any, of one connection from its beginning."""
        return ()

    # --- for the checks -----------------------------------------------------------------------------

    def plugins(self) -> Plugins:
        return Plugins.discover(disabled=()) if self.found is None else self.found

    @property
    def plugin(self) -> VendorPlugin:
        return self.plugins().vendor(self.vendor)

    def bench(self, **options: Any) -> Bench:
        """The plugin beside its own sandbox, which sends nothing by itself. To be used in ``with``."""
        plugins = self.plugins()
        defaults: dict[str, Any] = {
            "instruments": 30,
            "ticks_per_second": 0.0,
            "start": START,
            "rate_limits": False,
            "log": True,
        }
        box = Sandbox(
            self.vendor, broker=plugins.vendor(self.vendor).sandbox, **{**defaults, **self.sandbox, **options}
        )
        return Bench(plugins, self.vendor, box, self.settings)

    def on_wire(self, mode: Mode) -> Mode:
        """What the broker sends for that mode."""
        return self.wire_modes.get(mode, mode)

    @property
    def modes(self) -> Sequence[Mode]:
        return self.plugin.info.modes
