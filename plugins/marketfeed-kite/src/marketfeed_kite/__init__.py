"""Zerodha Kite for marketfeed."""
