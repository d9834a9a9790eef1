"""Rows in an order: splits, shuffles, batches, datasets."""
