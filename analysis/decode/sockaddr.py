"""Socket addresses as text."""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

from ringtape.analysis.decode.values import quoted
from ringtape.schemas.abi.constants import one

AF_UNIX: Final = 1
AF_INET: Final = 2
AF_INET6: Final = 10
AF_NETLINK: Final = 16
SLOT: Final = 32
"""Bytes of each message in ``paths.value`` of kind 3: the length of its address, and its first 28."""


def sockaddr(value: bytes) -> str:
    r"""Return a socket address as strace writes it.

    Layouts: include/uapi/linux/in.h, in6.h, un.h and netlink.h. An address that is too short for its family, or of
    another family, shows its bytes.

    >>> sockaddr(bytes([2, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]))
    '{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}'
    >>> sockaddr(b"\x01\0\0/tmp/.X11-unix/X0")
    '{sa_family=AF_UNIX, sun_path=@"/tmp/.X11-unix/X0"}'
    """
    if len(value) < 2:
        return quoted(value)
    # The kernel's own byte order: every ABI recorded here is little-endian.
    family = int.from_bytes(value[:2], "little")
    body = _body(family, value)
    if body is None:
        body = f"sa_data={quoted(value[2:])}" if len(value) > 2 else ""
    return f"{{sa_family={one('socket_family', family)}{', ' if body else ''}{body}}}"


def addresses(value: bytes) -> list[bytes]:
    r"""Take apart the addresses of many messages (``paths.kind`` 3): the bytes that were kept of each, none where there is none.

    >>> addresses(b"\x03\0\0\0abc".ljust(32, b"\0") + bytes(32))
    [b'abc', b'']
    """
    slots = [value[at : at + SLOT] for at in range(0, len(value), SLOT)]
    return [slot[4 : 4 + min(int.from_bytes(slot[:4], "little"), SLOT)] for slot in slots]


def _body(family: int, value: bytes) -> str | None:
    if family == AF_INET and len(value) >= 8:
        return f'sin_port=htons({struct.unpack_from(">H", value, 2)[0]}), sin_addr=inet_addr("{ipaddress.IPv4Address(value[4:8])}")'
    if family == AF_INET6 and len(value) >= 24:
        port, flow = struct.unpack_from(">HI", value, 2)
        scope = f", sin6_scope_id={struct.unpack_from('<I', value, 24)[0]}" if len(value) >= 28 else ""
        address = ipaddress.IPv6Address(value[8:24])
        return f'sin6_port=htons({port}), sin6_flowinfo=htonl({flow}), inet_pton(AF_INET6, "{address}", &sin6_addr){scope}'
    if family == AF_UNIX:
        return _unix(value[2:])
    if family == AF_NETLINK and len(value) >= 12:
        pid, groups = struct.unpack_from("<iI", value, 4)
        return f"nl_pid={pid}, nl_groups={groups:08x}"
    return None


def _unix(path: bytes) -> str:
    if not path:
        return ""
    if path[0] == 0:  # abstract: every byte of the given length counts, NULs as well
        return f"sun_path=@{quoted(path[1:])}"
    return f"sun_path={quoted(path.split(bytes(1), 1)[0])}"
