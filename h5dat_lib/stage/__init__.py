"""Batches to staged files, in worker processes that may die of it."""
