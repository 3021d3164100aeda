"""Records as numpy sees them: one dtype per table, equal to the C struct that the probe fills."""

from __future__ import annotations

from functools import cache

import numpy as np

from ringtape.schemas.columns import SIZES
from ringtape.schemas.table import Table

RING_HEADER = np.dtype([("len", "<u4"), ("pgoff", "<u4")])
"""Header that the kernel puts before every ring buffer record (include/uapi/linux/bpf.h: BPF_RINGBUF_HDR_SZ)."""
BUSY = np.uint32(1 << 31)
"""Bit of ``len``: reserved, not yet submitted (BPF_RINGBUF_BUSY_BIT)."""
DISCARDED = np.uint32(1 << 30)
"""Bit of ``len``: to be skipped (BPF_RINGBUF_DISCARD_BIT)."""


@cache
def record_dtype(table: Table) -> np.dtype[np.void]:
    """Return the dtype of the fixed part of a record of this table.

    Records in ring buffers carry a leading ``cookie`` and a trailing ``<column>_len`` for each ``bytes`` column.
    The item size is a multiple of 8, as the ring rounds up to it.
    """
    names: list[str] = []
    formats: list[str] = []
    offsets: list[int] = []
    position = 0

    def add(name: str, code: str, size: int) -> None:
        nonlocal position
        position += -position % min(size, 8) if code != "S16" else 0
        names.append(name)
        formats.append(code)
        offsets.append(position)
        position += size

    if table.in_ring_buffer:
        add("cookie", "<u8", 8)
    for column in table.fixed:
        size = SIZES[column.type]
        add(column.name, "S16" if column.type == "comm" else f"<i{size}", size)
    for column in table.tail:
        add(f"{column.name}_len", "<u4", 4)
    spec = {"names": names, "formats": formats, "offsets": offsets, "itemsize": position + -position % 8}
    return np.dtype(spec)  # type: ignore[call-overload, no-any-return]
