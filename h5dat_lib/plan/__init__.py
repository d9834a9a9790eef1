"""Archives to batches: what members are, how their rows will lie, and which of them are converted together."""
