"""The first bytes of an HDF5 file, as far as a transaction needs them: is the file whole, and the mark that it is being written.

The mark is HDF5's own file consistency flag, which every HDF5 library heeds in superblocks of version 3, the version that we write;
in others, the signature is taken out. (HDF5 File Format Specification 3.0, II.A.2 and "Disk Format: Level 0A".)
"""

from __future__ import annotations

__all__ = ["SUPERBLOCK_BYTES", "is_whole", "marked"]

SUPERBLOCK_BYTES = 48
"""Size of a superblock of version 2 or 3 with addresses of 8 bytes; its last four bytes are the checksum of the others."""
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSION_AT = 8
_FLAGS_AT = 11
_BEING_WRITTEN = 1
_CHECKSUM_AT = SUPERBLOCK_BYTES - 4
_WORD = 0xFFFFFFFF


def is_whole(head: bytes) -> bool:
    """Whether a file that starts with these 48 bytes is HDF5 and carries no mark."""
    if not head.startswith(_SIGNATURE) or len(head) < SUPERBLOCK_BYTES:
        return False
    if head[_VERSION_AT] != 3:
        return any(head[_VERSION_AT:SUPERBLOCK_BYTES])  # a signature before zeros is a superblock of which the rest did not arrive
    return not head[_FLAGS_AT] & _BEING_WRITTEN and head[_CHECKSUM_AT:SUPERBLOCK_BYTES] == _checksum(head)


def marked(head: bytes) -> bytes:
    """The same 48 bytes with the mark that the file is being written."""
    if not head.startswith(_SIGNATURE) or head[_VERSION_AT] != 3:
        return bytes(len(_SIGNATURE)) + head[len(_SIGNATURE) : SUPERBLOCK_BYTES]
    flagged = head[:_FLAGS_AT] + bytes([head[_FLAGS_AT] | _BEING_WRITTEN]) + head[_FLAGS_AT + 1 : _CHECKSUM_AT]
    return flagged + _checksum(flagged)


def _checksum(head: bytes) -> bytes:
    """Checksum of a superblock: Bob Jenkins' lookup3 hashlittle (public domain) over all before it, with initial value 0."""
    words = [int.from_bytes(head[at : at + 4], "little") for at in range(0, _CHECKSUM_AT, 4)]
    a = b = c = (0xDEADBEEF + _CHECKSUM_AT) & _WORD
    for at in range(0, len(words) - 3, 3):  # the last 12 bytes or fewer are for the final mix
        a, b, c = _mix((a + words[at]) & _WORD, (b + words[at + 1]) & _WORD, (c + words[at + 2]) & _WORD)
    tail = words[at + 3 :]
    a, b = (a + tail[0]) & _WORD, (b + tail[1]) & _WORD
    return _final(a, b, c).to_bytes(4, "little")


def _rotated(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (32 - bits))) & _WORD


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in (4, 6, 8, 16, 19, 4):
        # a -= c; a ^= rot(c, bits); c += b; and the three change places
        a, c = ((a - c) & _WORD) ^ _rotated(c, bits), (c + b) & _WORD
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for bits in (14, 11, 25, 16, 4, 14, 24):
        # c ^= b; c -= rot(b, bits); and the three change places
        c = ((c ^ b) - _rotated(b, bits)) & _WORD
        a, b, c = b, c, a
    return b
