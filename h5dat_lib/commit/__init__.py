"""Staged files to HDF5: all of them, or nothing."""
