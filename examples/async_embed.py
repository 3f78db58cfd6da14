"""Two feeds of one account in one event loop. Needs KITE_API_KEY and KITE_ACCESS_TOKEN."""

import asyncio

from marketfeed import Feed


async def watch(name: str, instruments: list[str]) -> None:
    """Print the widest spread of each batch."""
    async with Feed("kite", instruments=instruments, name=name) as feed:
        async for batch in feed:
            print(name, len(batch), "ticks, widest spread", batch.bid_ask_spread.max())


async def main() -> None:
    await asyncio.gather(watch("it", ["NSE:INFY", "NSE:TCS"]), watch("banks", ["NSE:HDFCBANK", "NSE:SBIN"]))


if __name__ == "__main__":
    asyncio.run(main())
