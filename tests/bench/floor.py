"""The floor: what any recorder of every call's duration pays, measured with programs that do nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import cache

from ringtape.recorder import bpf
from ringtape.recorder.btf import read_kernel_types
from ringtape.recorder.compile import _compile

_TEXT = """
static u64 (*now_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
int empty(u64 *ctx) { return 0; }
int clock(u64 *ctx) { now_ns(); return 0; }
"""
TRACEPOINTS = ("sys_enter", "sys_exit")


@cache
def _code() -> dict[str, bytes]:
    answer = _compile(_TEXT, ["empty", "clock"])
    functions = answer["functions"]
    assert isinstance(functions, dict)
    return {name: bytes.fromhex(text) for name, text in functions.items()}


@contextlib.contextmanager
def attached(name: str, tracepoints: Sequence[str] = TRACEPOINTS) -> Iterator[None]:
    """Attach ``empty`` or ``clock`` (one clock read) to typed raw tracepoints: the entry and the exit of every call unless others are named."""
    types = read_kernel_types(set())
    descriptors: list[int] = []
    try:
        for tracepoint in tracepoints:
            btf_id = types.tracepoints[tracepoint][0]
            program = bpf.load_program(name, _code()[name], bpf.PROG_TYPE_TRACING, bpf.ATTACH_TRACE_RAW_TP, btf_id)
            descriptors.append(program)
            descriptors.append(bpf.attach_raw_tracepoint(program))
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
