"""Bytes in, damaged bytes out: bits, lengths, pieces."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

Mutation = Callable[[bytearray, Random, Sequence[bytes]], None]

_MOST = 4
"""Mutations of one input."""
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
"""Where sizes and signs change."""
_PIECE = 64


def mutated(data: bytes | bytearray, others: Sequence[bytes], rng: Random, tokens: Sequence[bytes] = ()) -> bytes:
    """``data`` after one to a few mutations; pieces of ``others`` and ``tokens`` may come into it."""
    found = bytearray(data)
    pool = [*others, *tokens]
    for _ in range(rng.randint(1, _MOST)):
        if tokens and rng.random() < 0.5:
            insert_token(found, rng, tokens)
        else:
            rng.choice(MUTATIONS)(found, rng, pool)
    return bytes(found)


def _place(data: bytearray, rng: Random) -> int:
    """Headers stand at the start, directories at the end: half of the places are there."""
    near, anywhere = rng.randrange(min(len(data), 512) + 1), rng.randrange(len(data) + 1)
    return rng.choice((near, len(data) - near, anywhere, anywhere))


def _range(data: bytearray, rng: Random) -> slice:
    start = _place(data, rng)
    return slice(start, start + rng.choice((1, 2, 4, 8, rng.randint(1, _PIECE), rng.randint(1, len(data) + 1))))


def _flip(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    if data:
        data[_place(data, rng) % len(data)] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    if data:
        data[_place(data, rng) % len(data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _number(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    """Another number in a place where a length may stand: a bound, or one that is near what is there."""
    size, order = rng.choice((1, 2, 4, 8)), rng.choice("<>")
    start = _place(data, rng)
    there = int.from_bytes(data[start : start + size], "little" if order == "<" else "big")
    value = rng.choice((*_NUMBERS, there + 1, there - 1, there * 2, len(data), len(data) - start)) % (1 << 8 * size)
    data[start : start + size] = struct.pack(f"{order}{'_BH_I___Q'[size]}", value)


def _truncate(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    del data[_place(data, rng) :]


def _cut(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    del data[_range(data, rng)]


def _repeat(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    piece = data[_range(data, rng)][:4096]
    at = _place(data, rng)
    data[at:at] = piece * rng.choice((1, 2, rng.randint(1, 50)))


def _splice(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    """A piece of another input, or of this one, over or between what is here."""
    other = bytearray(rng.choice(pool)) if pool else data
    piece = other[_range(other, rng)]
    at = _place(data, rng)
    data[at : at + rng.choice((0, len(piece)))] = piece


def _join(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    """The start of this one, the end of another."""
    other = rng.choice(pool) if pool else bytes(data)
    data[_place(data, rng) :] = other[rng.randrange(len(other) + 1) :]


def insert_token(data: bytearray, rng: Random, tokens: Sequence[bytes]) -> None:
    """A word of the format, over or between what is here."""
    at, token = _place(data, rng), rng.choice(tokens)
    data[at : at + rng.choice((0, len(token)))] = token * rng.choice((1, 1, 1, rng.randint(1, 300)))


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _overwrite, _number, _number, _number, _truncate, _cut, _repeat, _splice, _join)
