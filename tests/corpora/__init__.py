"""Test files of other projects: each is a row or a reject, never a crash, a hang or too much memory. Run by ``python -m tests.corpora``."""
