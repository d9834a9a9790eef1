"""Finished files merged, stored otherwise, compared."""
