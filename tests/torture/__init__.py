"""Fault injection: ingests that are cut, killed and run into failing disks, thousands of times. Run by ``python -m tests.torture``.

Every random choice comes from a seed that is printed, so that what failed can be run again by itself.
"""
