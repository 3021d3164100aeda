"""What files, sockets, pipes and other things behind descriptors are called, each name stored once."""

from __future__ import annotations

import ipaddress
import struct

from ringtape.analysis.decode.sockaddr import AF_INET, AF_INET6, AF_UNIX
from ringtape.schemas.abi.constants import one
from ringtape.schemas.escape import escape

FILE, SOCKET, PIPE, OTHER, UNKNOWN = "file", "socket", "pipe", "other", "unknown"
LONGEST = 8192
"""Paths that grow beyond it, as those of a program that changes folders for ever, are taken as given from there on."""
_PROTOCOLS = {(AF_INET, 1): "TCP", (AF_INET, 2): "UDP", (AF_INET6, 1): "TCP", (AF_INET6, 2): "UDP"}


class Names:
    """Names by number. A name is what is shown, unescaped, and its kind."""

    def __init__(self) -> None:
        self.values: list[tuple[bytes, str]] = []
        self._numbers: dict[tuple[bytes, str], int] = {}
        self._paths: dict[tuple[int, bytes], int] = {}
        self._physical: set[bytes] = set()
        self.not_recorded = self.number(b"(path not recorded)", UNKNOWN)
        self.not_open = self.number(b"(descriptor that is not open)", UNKNOWN)

    def number(self, name: bytes, kind: str) -> int:
        """Return the number of a name."""
        key = (name, kind)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.values)
            self.values.append(key)
        return number

    def unknown(self, fd: int) -> int:
        """Return the number of the name of a descriptor that nothing recorded explains."""
        return self.number(b"fd %d (unknown)" % fd, UNKNOWN)

    def path(self, folder: int, value: bytes) -> int:
        """Return the number of a path, taken from a folder if it is relative and the folder is known (else -1).

        Only what does not change the meaning is tidied: ``//``, ``/./``, ``./`` and a slash at the end; and a leading ``..`` where
        the kernel itself has named the folder, without symbolic links. Any other ``..`` stays, since what is above a symbolic link
        is not what the text says.
        """
        given = (folder, value)
        known = self._paths.get(given)
        if known is None:
            known = self._paths[given] = self._path(folder, value)
        return known

    def _path(self, folder: int, value: bytes) -> int:
        if not value.startswith(b"/") and folder >= 0:
            above, kind = self.values[folder]
            if kind == FILE and len(above) + len(value) < LONGEST:
                value = self._climbed(above, value) if above in self._physical else above.rstrip(b"/") + b"/" + value
        if b"//" in value or b"/./" in value or value.startswith(b"./") or value.endswith((b"/", b"/.")):
            parts = [part for part in value.split(b"/") if part not in (b"", b".")]
            value = (b"/" if value.startswith(b"/") else b"") + b"/".join(parts) or b"."
        return self.number(value or b"(empty path)", FILE if value else UNKNOWN)

    def _climbed(self, folder: bytes, value: bytes) -> bytes:
        """Join a relative path to a folder that is named without symbolic links, as are those above it."""
        parts = [part for part in value.split(b"/") if part not in (b"", b".")]
        ups = next((at for at, part in enumerate(parts) if part != b".."), len(parts))
        for _ in range(ups):
            folder = folder.rpartition(b"/")[0] or b"/"
        if ups == len(parts):
            self._physical.add(folder)
        return b"/".join([folder.rstrip(b"/"), *parts[ups:]]) or b"/"

    def target(self, link: bytes) -> int:
        """Return the number of the name of what a link in /proc/PID/fd says."""
        if link.startswith(b"/memfd:"):
            return self.number(link[1:].removesuffix(b" (deleted)"), OTHER)
        if link.startswith(b"/"):
            self._physical.add(link)
            return self.number(link, FILE)
        for prefix, kind in ((b"socket:", SOCKET), (b"pipe:", PIPE)):
            if link.startswith(prefix):
                return self.number(link, kind)
        return self.number(link, OTHER)

    def text(self, number: int) -> str:
        """Return a name as it is shown."""
        return escape(self.values[number][0])


def socket_name(domain: int, kind: int) -> str:
    """Return what sockets of a family and type are called.

    >>> socket_name(2, 0o2000001), socket_name(1, 1), socket_name(16, 3)
    ('TCP', 'UNIX', 'NETLINK')
    """
    known = _PROTOCOLS.get((domain, kind & 0xF))
    return known or one("socket_family", domain).removeprefix("AF_")


def address(value: bytes, port: bool = True) -> str | None:
    """Return a socket address as people write it; None where it names nobody.

    >>> address(bytes([2, 0, 0, 80, 127, 0, 0, 1])), address(bytes([2, 0, 0, 80, 127, 0, 0, 1]), port=False)
    ('127.0.0.1:80', '127.0.0.1')
    """
    if len(value) < 3:
        return None
    family = int.from_bytes(value[:2], "little")
    if family == AF_INET and len(value) >= 8:
        host = str(ipaddress.IPv4Address(value[4:8]))
    elif family == AF_INET6 and len(value) >= 24:
        host = f"[{ipaddress.IPv6Address(value[8:24])}]"
    elif family == AF_UNIX:
        path = value[2:]
        text = b"@" + path[1:] if path[:1] == b"\0" else path.split(b"\0", 1)[0]
        return text.decode("utf-8", "surrogateescape") or None
    else:
        return None
    return f"{host}:{struct.unpack_from('>H', value, 2)[0]}" if port else host


def family_of(value: bytes) -> int:
    """Return the family of a socket address; 0 if it has none."""
    return int.from_bytes(value[:2], "little") if len(value) >= 2 else 0
