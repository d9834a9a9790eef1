"""Mutation fuzzing: valid inputs, damaged in many ways, for whatever reads bytes that are not ours. Run by ``python -m tests.fuzz``.

Every input follows from a seed, the name of its target and a number, so that each can be made again by itself.
"""
