"""perf_event_open(2), as far as a recorder needs it: clocks that sample and tracepoints by their number.

Numbers and layout: include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct

from ringtape.recorder import bpf
from ringtape.schemas.errors import RecordingError

TYPE_SOFTWARE, TYPE_TRACEPOINT = 1, 2
CPU_CLOCK, DUMMY = 0, 9
DISABLED, EXCLUDE_IDLE, FREQUENCY = 1 << 0, 1 << 7, 1 << 10
IOC_ENABLE, IOC_SET_BPF = 0x2400, 0x40042408
_SYSCALL = {"x86_64": 298, "aarch64": 241}
_ATTR_SIZE = 128
_CLOEXEC = 1 << 3

_libc = ctypes.CDLL(None, use_errno=True)


def open_event(kind: int, config: int, cpu: int, *, period: int = 0, flags: int = 0, sample_type: int = 0, rest: bytes = b"") -> int:
    """Open an event of every process on one CPU, and return its descriptor.

    Parameters
    ----------
    kind, config : int
        ``perf_event_attr.type`` and ``.config``.
    cpu : int
        Where it counts.
    period : int
        Events between two samples; samples per second with the flag `FREQUENCY`.
    flags : int
        The bit field of ``perf_event_attr``.
    sample_type : int
        What its records hold.
    rest : bytes
        What follows the bit field in ``perf_event_attr``.

    Raises
    ------
    OSError
        With the kernel's errno.
    """
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise RecordingError(f"perf events on {platform.machine()} are not supported")
    head = struct.pack("=IIQQQQQ", kind, _ATTR_SIZE, config, period, sample_type, 0, flags)
    attributes = ctypes.create_string_buffer((head + rest).ljust(_ATTR_SIZE, b"\0"), _ATTR_SIZE)
    result = _libc.syscall(number, attributes, -1, cpu, -1, _CLOEXEC)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"perf_event_open: {os.strerror(code)}")
    return int(result)


def attach_program(event: int, program: int) -> int | None:
    """Run a BPF program at each occurrence of a tracepoint, on every CPU; the event itself need not be enabled.

    Returns
    -------
    int or None
        A link: closing it detaches the program at once, while closing the event waits until no CPU can be inside of the
        tracepoint (measured: 60 ms). None before Linux 5.15, where only closing the event detaches.

    Raises
    ------
    OSError
        With the kernel's errno.
    """
    try:
        return bpf.bpf(bpf.Command.LINK_CREATE, struct.pack("=IIII", program, event, bpf.ATTACH_PERF_EVENT, 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    fcntl.ioctl(event, IOC_SET_BPF, program)
    return None


def run_program(event: int, program: int) -> None:
    """Run a BPF program at each occurrence of an event, from now on; closing the event ends it."""
    fcntl.ioctl(event, IOC_SET_BPF, program)
    fcntl.ioctl(event, IOC_ENABLE, 0)
