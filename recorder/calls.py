"""What the probes are told of each system call before they are loaded."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from mmap import mmap

from ringtape.recorder.bpf import PAGE, Map
from ringtape.recorder.options import Options
from ringtape.schemas.abi import syscalls as abi

CALLS = 1024
"""Numbers of each ABI that the map ``calls`` has room for (probes/syscalls.bpf.c)."""
_STRING_KINDS = {"fds_out": 0, "path": 1, "sockaddr_in": 2, "sockaddr_out": 3}
_LISTED = 8


def fill_calls(calls: Map, options: Options) -> None:
    """Tell the probe of each call its arity, whether it is wanted, and which arguments are strings."""
    native = abi.native_abi()
    infos = array("I", [6 if options.calls else 6 | _LISTED]) * (2 * CALLS)
    numberings: Iterable[tuple[int, str | None]] = ((0, native), (CALLS, abi.compat_abi(native)))
    for base, name in numberings:
        for number in abi.names(name) if name else ():
            if name is None or number >= CALLS:
                continue
            info = abi.arity(name, number)
            if not options.calls or (name, number) in options.calls:
                info |= _LISTED
            for slot, string in enumerate(abi.strings(name, number)):
                # fds_out has the kind 0: a length that is not 0 tells it from no string.
                length = string.length_arg if string.length_arg is not None else int(string.kind == "fds_out")
                info |= (string.arg | _STRING_KINDS[string.kind] << 3 | length << 5) << 8 * (slot + 1)
            infos[base + number] = info
    for number in abi.names("x32") if native == "x86_64" else ():
        # 512 to 547 are of x32 alone; the probe looks all x32 calls up without their bit.
        if (plain := number & ~abi.X32_BIT) not in abi.names(native):
            infos[plain] = abi.arity("x32", number) | (0 if options.calls else _LISTED)
    with mmap(calls.fd, -(-len(infos) * 8 // PAGE) * PAGE) as memory:
        # Elements of an array map lie 8 bytes apart.
        cells = array("I", bytes(len(infos) * 8))
        cells[::2] = infos
        memory[: len(infos) * 8] = cells.tobytes()
