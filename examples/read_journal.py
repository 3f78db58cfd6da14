"""Follow the journal of a running feed from another process, without the feed noticing.

Start the feed first (``marketfeed run examples/feed.toml --sandbox``), then ``python examples/read_journal.py``.
"""

import sys

from marketfeed import Journal
from marketfeed.journal import ticks_folder

folder = ticks_folder(sys.argv[1] if len(sys.argv) > 1 else "data/journal", "main")
with Journal.attach(folder) as journal:
    print(f"{journal.committed:,} ticks in {journal.name}, {len(journal.instruments)} instruments")
    for batch in journal.follow(start="oldest"):  # ends when the feed has ended
        turnover = (batch["last_price"] * batch["last_quantity"]).sum()
        print(f"{len(batch):5} ticks from row {batch.first_row:,}, turnover {turnover:,.0f} rupees")
