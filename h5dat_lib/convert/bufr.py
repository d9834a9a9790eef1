"""BUFR: a member's bytes in; each message as a JSON document of its keys, its key/value pairs and its numbers out.

ecCodes decodes them, by the tables that it brings along. Facts of the format: WMO Manual on Codes, volume I.2, FM 94.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain, count
from types import ModuleType
from typing import Any

import numpy as np

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Arrays, Block, Bytes, Column, Fault, Pairs, Scalars
from h5dat_lib.config import Limits, MediumOptions
from h5dat_lib.convert.json_pairs import PairList
from h5dat_lib.convert.json_text import parsed
from h5dat_lib.convert.picture import short
from h5dat_lib.errors import MemberError

_START, _END = b"BUFR", b"7777"
"""How a message starts, before three bytes with its length, and how it ends."""


def convert(content: Content, options: MediumOptions) -> Iterator[Block | Fault]:
    """Blocks of one row, one a message: ``document``, JSON text of one object, and its pairs when asked for; ``message`` uint64, counted
    from 0; ``values`` (numbers,) float64, all numbers of the data section in the order of the document, NaN where one is missing.

    In the document a key with several values, such as one of a compressed message for each of its subsets, is an array; a missing value
    is null. What lies between messages, such as the headings of bulletins, is passed over. A message that cannot be decoded is a Fault,
    and so is all behind one that does not end as it should. Raises MemberError when no message can be decoded.
    """
    data = content.read()
    if data.startswith(b"GRIB"):
        raise MemberError("not BUFR: found a GRIB message, whose fields are no documents")
    eccodes = _eccodes()
    rows, start = 0, data.find(_START)
    reason = "not BUFR: found no message"
    for number in count():
        if start < 0:
            break
        end = start + int.from_bytes(data[start + 4 : start + 7], "big")
        try:
            yield _block(eccodes, data[start:end], number, options, content.limits)
            rows += 1
        except MemberError as exc:
            reason = exc.reason
            yield Fault(f"message {number}: {reason}")
        start = data.find(_START, end) if data[max(start, end - 4) : end] == _END else -1
    if not rows:
        raise MemberError(reason)


def _block(eccodes: ModuleType, message: bytes, number: int, options: MediumOptions, limits: Limits) -> Block:
    if not message.endswith(_END):
        raise MemberError(f"damaged: found {message[-4:]!r} at the end of a message, expected {_END!r}; nothing behind it is read")
    with _decoded(eccodes, message) as handle:
        keys = _keys(eccodes, handle)
        size = sum(eccodes.codes_get_size(handle, key) for key in keys)
        if size > limits.json_values:
            raise MemberError(f"too large: found {size} values, expected at most {limits.json_values} (limits.json_values)")
        values = {key: _values(eccodes, handle, key) for key in keys}
        numbers = list(chain.from_iterable(values[key] for key in keys if _is_number(eccodes, handle, key)))
    document = json.dumps({key: found[0] if len(found) == 1 else found for key, found in values.items()}, ensure_ascii=False).encode()
    columns: dict[str, Column] = {
        "document": Bytes([document], "text"),
        "message": Scalars([number], "<u8"),
        "values": Arrays([np.array([np.nan if value is None else value for value in numbers], np.float64)], pictures=False),
    }
    return Block(1, columns, _pairs(document) if options.document.pairs else None)


@contextmanager
def _decoded(eccodes: ModuleType, message: bytes) -> Iterator[int]:
    """ecCodes' handle of a message whose data section has been decoded; its failures become MemberErrors."""
    handle = None
    try:
        handle = eccodes.codes_new_from_message(message)
        eccodes.codes_set(handle, "unpack", 1)
        yield handle
    except (eccodes.CodesInternalError, ValueError) as exc:
        raise MemberError(f"cannot be decoded as BUFR: {short(exc)}") from exc
    finally:
        if handle is not None:
            eccodes.codes_release(handle)


def _keys(eccodes: ModuleType, handle: int) -> list[str]:
    """Every key once, in the order of the message."""
    iterator = eccodes.codes_bufr_keys_iterator_new(handle)
    keys: dict[str, None] = {}
    while eccodes.codes_bufr_keys_iterator_next(iterator):
        keys[eccodes.codes_bufr_keys_iterator_get_name(iterator)] = None
    eccodes.codes_bufr_keys_iterator_delete(iterator)
    return list(keys)


def _values(eccodes: ModuleType, handle: int, key: str) -> list[Any]:
    """A key's values as JSON has them."""
    if eccodes.codes_get_size(handle, key) == 1 and eccodes.codes_is_missing(handle, key):
        return [None]
    kind = eccodes.codes_get_native_type(handle, key)
    if kind is str:
        return list(eccodes.codes_get_string_array(handle, key))
    missing = eccodes.CODES_MISSING_LONG if kind is int else eccodes.CODES_MISSING_DOUBLE
    return [None if value == missing else value for value in eccodes.codes_get_array(handle, key).tolist()]


def _is_number(eccodes: ModuleType, handle: int, key: str) -> bool:
    """Whether a key is of the data section, and no string."""
    return not eccodes.codes_bufr_key_is_header(handle, key) and eccodes.codes_get_native_type(handle, key) is not str


def _pairs(document: bytes) -> Pairs:
    """The pairs of a document, all of row 0."""
    found = PairList()
    parts = [*found.add(0, parsed(document)), found.take()]
    keys, values, types = (list(chain.from_iterable(getattr(part, name) for part in parts)) for name in ("keys", "values", "types"))
    return Pairs([0] * len(keys), keys, values, types)


@cache
def _eccodes() -> ModuleType:
    """The library, which then keeps its complaints to itself. Raises MemberError when it is not installed."""
    try:
        import eccodes
        from gribapi.bindings import library_path
    except (ImportError, RuntimeError) as exc:
        raise MemberError("BUFR needs ecCodes: `pip install h5dat[bufr]`, and `h5dat retry` takes the member in") from exc
    eccodes.codes_bufr_multi_element_constant_arrays_on()  # else a key that is the same for all subsets has one value
    ctypes.CDLL(library_path).codes_context_set_logging_proc(None, _SILENCE)
    module: ModuleType = eccodes
    return module


_SILENCE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(lambda *_: None)
"""What ecCodes is to call instead of printing; lives as long as the library may."""
