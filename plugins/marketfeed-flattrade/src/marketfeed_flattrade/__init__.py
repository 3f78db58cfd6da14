"""FlatTrade for marketfeed."""
