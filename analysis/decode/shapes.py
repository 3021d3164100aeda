"""Calls whose arguments depend on one another: which of them the kernel reads, and by which set they are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ringtape.analysis.decode.values import pointer, signed
from ringtape.schemas.abi.constants import flags, one
from ringtape.schemas.abi.errors import signal_name

Row = Sequence[int]
Shown = Sequence[str]
Shape = Callable[[str, Row, Shown], Sequence[str]]
"""From the ABI, the arguments and their plain texts to the texts that are shown."""

_O_CREAT: Final = 0o100
_O_TMPFILE: Final = 0o20000000
"""The bit that is O_TMPFILE's alone (__O_TMPFILE in asm-generic/fcntl.h)."""


def _open(position: int) -> Shape:
    def shape(abi: str, args: Row, shown: Shown) -> Shown:
        del abi
        return shown if args[position] & (_O_CREAT | _O_TMPFILE) else shown[: position + 1]

    return shape


_FCNTL_NOTHING: Final = {"F_GETFD", "F_GETFL", "F_GETOWN", "F_GETSIG", "F_GETLEASE", "F_GETPIPE_SZ", "F_GET_SEALS"}
_FCNTL_NUMBER: Final = {"F_DUPFD", "F_DUPFD_CLOEXEC", "F_DUPFD_QUERY", "F_SETOWN", "F_SETPIPE_SZ"}
_LEASES: Final = {0: "F_RDLCK", 1: "F_WRLCK", 2: "F_UNLCK"}


def _fcntl(abi: str, args: Row, shown: Shown) -> Shown:
    command, value = shown[1], args[2]
    if command in _FCNTL_NOTHING:
        return shown[:2]
    if command in _FCNTL_NUMBER:
        last = str(signed(value))
    elif command == "F_SETFD":
        last = flags("fd", value)
    elif command == "F_SETFL":
        last = flags("open", value, abi)
    elif command == "F_ADD_SEALS":
        last = flags("seals", value)
    elif command == "F_SETSIG":
        last = signal_name(signed(value))
    elif command == "F_SETLEASE":
        last = _LEASES.get(value, shown[2])
    else:
        last = pointer(value)
    return [*shown[:2], last]


def _futex(abi: str, args: Row, shown: Shown) -> Shown:
    del abi
    address, operation, value, timeout, second, third = shown
    match args[1] & 0x7F:  # FUTEX_CMD_MASK: without the private and the clock bit
        case 0:
            rest = [value, timeout]
        case 1 | 2:
            rest = [value]
        case 3:
            rest = [value, str(args[3] & 0xFFFFFFFF), second]
        case 4 | 12:
            rest = [value, str(args[3] & 0xFFFFFFFF), second, str(args[5] & 0xFFFFFFFF)]
        case 5:
            rest = [value, str(args[3] & 0xFFFFFFFF), second, f"{args[5] & 0xFFFFFFFF:#x}"]
        case 6 | 13:
            rest = [timeout]
        case 7 | 8:
            rest = []
        case 9:
            rest = [value, timeout, _bitset(args[5])]
        case 10:
            rest = [value, _bitset(args[5])]
        case 11:
            rest = [value, timeout, second]
        case _:
            rest = [value, timeout, second, third]
    return [address, operation, *rest]


def _bitset(value: int) -> str:
    value &= 0xFFFFFFFF
    return "FUTEX_BITSET_MATCH_ANY" if value == 0xFFFFFFFF else f"{value:#x}"


def _clone(abi: str, args: Row, shown: Shown) -> Shown:
    tls, child = (4, 3) if abi in ("x86_64", "x32") else (3, 4)
    result = [f"child_stack={shown[1]}", f"flags={shown[0]}"]
    if args[0] & 0x00101000:  # CLONE_PARENT_SETTID, CLONE_PIDFD
        result.append(f"parent_tid={shown[2]}")
    if args[0] & 0x00080000:  # CLONE_SETTLS
        result.append(f"tls={shown[tls]}")
    if args[0] & 0x01200000:  # CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID
        result.append(f"child_tidptr={shown[child]}")
    return result


def _mremap(abi: str, args: Row, shown: Shown) -> Shown:
    del abi
    return shown if args[3] & 6 else shown[:4]  # MREMAP_FIXED, MREMAP_DONTUNMAP


_OPTIONS: Final = {"SOL_SOCKET": "so", "SOL_TCP": "tcp", "SOL_IP": "ip", "SOL_IPV6": "ipv6", "SOL_NETLINK": "netlink"}


def _sockopt(abi: str, args: Row, shown: Shown) -> Shown:
    family = _OPTIONS.get(shown[1])
    return shown if family is None else [*shown[:2], one(family, args[2], abi), *shown[3:]]


def _socket(abi: str, args: Row, shown: Shown) -> Shown:
    del abi
    if shown[0] in ("AF_INET", "AF_INET6"):
        return shown
    protocol = one("netlink_protocol", args[2]) if shown[0] == "AF_NETLINK" else str(signed(args[2]))
    return [*shown[:2], protocol, *shown[3:]]


_PRCTL_NOTHING: Final = frozenset(
    (
        "PR_GET_DUMPABLE",
        "PR_GET_KEEPCAPS",
        "PR_GET_TIMING",
        "PR_GET_SECCOMP",
        "PR_GET_SECUREBITS",
        "PR_GET_TIMERSLACK",
        "PR_TASK_PERF_EVENTS_DISABLE",
        "PR_TASK_PERF_EVENTS_ENABLE",
        "PR_MCE_KILL_GET",
        "PR_GET_IO_FLUSHER",
        "PR_SVE_GET_VL",
        "PR_GET_NO_NEW_PRIVS",
        "PR_GET_THP_DISABLE",
    )
)
_PRCTL_ALL: Final = frozenset(
    (
        "PR_SET_MM",
        "PR_SET_VMA",
        "PR_CAP_AMBIENT",
        "PR_SET_NO_NEW_PRIVS",
        "PR_SET_THP_DISABLE",
        "PR_SET_SYSCALL_USER_DISPATCH",
        "PR_SCHED_CORE",
        "PR_SET_SPECULATION_CTRL",
        "PR_MCE_KILL",
        "PR_SET_MDWE",
        "PR_GET_MDWE",
        "PR_SET_MEMORY_MERGE",
        "PR_GET_MEMORY_MERGE",
        "PR_GET_AUXV",
    )
)


def _prctl(abi: str, args: Row, shown: Shown) -> Shown:
    option = shown[0]
    if option in _PRCTL_NOTHING:
        return shown[:1]
    if option == "PR_SET_PDEATHSIG":
        return [option, signal_name(signed(args[1]))]
    if option == "PR_SET_SECCOMP":
        return [option, one("seccomp_mode", args[1], abi), pointer(args[2])]
    return shown if option in _PRCTL_ALL or option.startswith("0x") else shown[:2]


SHAPES: Final[Mapping[str, Shape]] = {
    "open": _open(1),
    "openat": _open(2),
    "mq_open": _open(1),
    "fcntl": _fcntl,
    "fcntl64": _fcntl,
    "futex": _futex,
    "futex_time64": _futex,
    "clone": _clone,
    "mremap": _mremap,
    "setsockopt": _sockopt,
    "getsockopt": _sockopt,
    "socket": _socket,
    "socketpair": _socket,
    "prctl": _prctl,
}
"""Only calls that need more than their signature stand here."""
