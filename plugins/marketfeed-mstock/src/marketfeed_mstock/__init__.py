"""mStock (Mirae Asset) for marketfeed."""
