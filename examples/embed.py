"""Prices of two instruments, and the spread of one: ten lines. Needs KITE_API_KEY and KITE_ACCESS_TOKEN."""

from marketfeed import Feed

with Feed("kite", instruments=["NSE:RELIANCE", "NSE:INFY"], mode="full") as feed:
    for batch in feed:
        for tick in batch.where(symbol="RELIANCE"):
            print(tick.symbol, tick.last_price, tick.bid_price[0], tick.ask_price[0])
        if "NSE:INFY" in feed.latest:
            print("INFY last traded at", feed.latest["NSE:INFY"].last_price)
