"""``SinkContract``: what every sink must do, as a pytest class to subclass."""

from __future__ import annotations

from marketfeed.testing.basics import ContentChecks, LifeChecks
from marketfeed.testing.manners import OptionChecks, TidyChecks
from marketfeed.testing.trouble import ResumeChecks, TroubleChecks

__all__ = ["SinkContract"]


class SinkContract(LifeChecks, ContentChecks, TroubleChecks, ResumeChecks, OptionChecks, TidyChecks):
    """Subclass it in a test file, with a name that begins with ``Test``, and say how to make the sink and how to
    read back what it wrote::

        class TestArchive(SinkContract):
            sink = ArchiveSink
            options = {"path": "{folder}/ticks.db"}
            documentation = Path("README.md")

            def read(self, folder):
                ...

    Attributes such as ``stores_position`` and ``can_fail`` say what else the sink can do; checks of what it
    cannot do are not collected. Each check is a method of its own and gets an empty ``tmp_path``.
    """
