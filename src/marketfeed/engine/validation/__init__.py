"""Looks at rows before they are published: vectorized, a few numpy calls for a whole batch.

A doubt is a bit in ``flags``; the configuration says for each reason whether the row is kept (flag
only), dropped, or put into the dead letters.
"""

from marketfeed.engine.validation.validator import REASONS, Checked, Validator, validate

__all__ = ["REASONS", "Checked", "Validator", "validate"]
