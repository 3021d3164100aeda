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
_STRING_KINDS = {"path": 1, "sockaddr_in": 2, "sockaddr_out": 3}
_STRUCTURES = {"fds_out": 1, "msg_in": 2, "msg_out": 3, "msgs_in": 4, "msgs_out": 5}
"""They have the kind 0 and stand where the others name the argument with their length, which is not 0: that would be no string."""
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
                length = _STRUCTURES.get(string.kind, string.length_arg or 0)
                info |= (string.arg | _STRING_KINDS.get(string.kind, 0) << 3 | length << 5) << 8 * (slot + 1)
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
