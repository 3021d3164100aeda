"""Writes many protobuf messages of one kind at once: numbers by the column, no Python per message.

A piece is a list of columns of bytes; a column is a byte for every message, or one that all have, with a mask of the messages that
have it at all. Encoding after https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Column = tuple["npt.NDArray[np.uint8] | int", "Bools | None"]
Piece = list[Column]
STEP = 1 << 13
"""Messages that are put together at once: what they need fits a processor's cache."""
_VARINT, _FIXED64, _BYTES = 0, 1, 2


def varint(value: int) -> bytes:
    r"""Return one number.

    >>> varint(300)
    b'\xac\x02'
    """
    value &= (1 << 64) - 1
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def record(tag: int, content: bytes) -> bytes:
    """Return one message or string as a field."""
    return varint(tag << 3 | _BYTES) + varint(len(content)) + content


def _head(tag: int, kind: int) -> Piece:
    return [(byte, None) for byte in varint(tag << 3 | kind)]


def _varints(values: npt.NDArray[Any]) -> Piece:
    rest = values.astype(np.int64, copy=False).view(np.uint64)
    most = int(rest.max()) if len(rest) else 0
    piece: Piece = []
    present: Bools | None = None
    while True:
        more = rest >= 0x80
        low = (rest & 0x7F).astype(np.uint8)
        if most < 0x80:
            return [*piece, (low, present)]
        piece.append((np.where(more, low | np.uint8(0x80), low).astype(np.uint8), present))
        rest, most, present = rest >> np.uint64(7), most >> 7, more


def number(tag: int, values: npt.NDArray[Any] | int) -> Piece:
    """Return a field of integers, or one that is the same in all messages."""
    if isinstance(values, (int, np.integer)):
        return [*_head(tag, _VARINT), *((byte, None) for byte in varint(int(values)))]
    return [*_head(tag, _VARINT), *_varints(values)]


def fixed(tag: int, values: npt.NDArray[Any]) -> Piece:
    """Return a field of integers of 8 bytes each."""
    raw = np.ascontiguousarray(values.astype("<u8")).view(np.uint8).reshape(-1, 8)
    return [*_head(tag, _FIXED64), *((raw[:, at], None) for at in range(8))]


def where(present: Bools, piece: Piece) -> Piece:
    """Return a piece that only some of the messages have."""
    return [(byte, present if mask is None else mask & present) for byte, mask in piece]


def message(tag: int, pieces: Iterable[Piece]) -> Piece:
    """Return a field that is a message."""
    columns = [column for piece in pieces for column in piece]
    same = sum(1 for _, mask in columns if mask is None)
    masks = [mask for _, mask in columns if mask is not None]
    if not masks:
        return [*_head(tag, _BYTES), *((byte, None) for byte in varint(same)), *columns]
    size = np.full(len(masks[0]), same, np.int64)
    for mask in masks:
        size += mask
    return [*_head(tag, _BYTES), *_varints(size), *columns]


def joined(count: int, piece: Piece) -> bytes:
    """Return the bytes of ``count`` messages, one after the other."""
    out = []
    for begin in range(0, count, STEP):
        rows = slice(begin, min(begin + STEP, count))
        size = rows.stop - rows.start
        data = np.empty((size, len(piece)), np.uint8)
        chosen = np.ones((size, len(piece)), np.bool_)
        for at, (byte, mask) in enumerate(piece):
            data[:, at] = byte if isinstance(byte, int) else byte[rows]
            if mask is not None:
                chosen[:, at] = mask[rows]
        out.append(data[chosen].tobytes())
    return b"".join(out)
