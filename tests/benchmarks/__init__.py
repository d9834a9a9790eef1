"""Time and memory: archives in, figures out, each beside the goal it has. Run by ``python -m tests.benchmarks``.

Nothing here asserts a time. What is compared is measured in turn within one run (A B A B), and told as the median of the
ratios, so that other load on the machine falls on both sides.
"""
