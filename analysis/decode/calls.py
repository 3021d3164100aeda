"""System calls as text: name, arguments, result."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

from ringtape.analysis.decode.shapes import SHAPES
from ringtape.analysis.decode.sockaddr import addresses, sockaddr
from ringtape.analysis.decode.values import Memo, argv, formatter, octal, pointer, quoted, signed
from ringtape.schemas.abi.constants import flags, one
from ringtape.schemas.abi.errors import RESTARTS, errno_message, errno_name
from ringtape.schemas.abi.syscalls import Argument, names, signature

RETURNED, NO_RETURN, AT_ATTACH, UNFINISHED, CHILD, INTERCEPTED = range(6)
"""Codes of ``syscalls.kind``."""
PATH, SOCKADDR, DESCRIPTORS, ADDRESSES, ARGV = range(5)
"""What a string is: the codes of ``paths.kind``, and the argument list of an exec."""
_HEX_RESULTS: Final = frozenset(("mmap", "mmap2", "brk", "mremap", "shmat", "map_shadow_stack"))
_TIMEOUTS: Final = frozenset(("poll", "ppoll", "ppoll_time64", "select", "_newselect", "pselect6", "pselect6_time64"))


class Text(NamedTuple):
    """What an argument points at, as recorded: ``kind`` is PATH, SOCKADDR, DESCRIPTORS, ADDRESSES or ARGV."""

    kind: int
    value: bytes
    cut: bool = False


Texts = Mapping[int, Text]
"""The recorded strings of one call by argument index."""


def call_name(abi: str, nr: int) -> str:
    """Return the name of a call, ``syscall_0x...`` where the number has none."""
    return names(abi).get(nr) or f"syscall_{nr & 0xFFFFFFFF:#x}"


def call(abi: str, nr: int, args: Sequence[int], texts: Texts | None = None) -> str:
    """Return one call without its result.

    Parameters
    ----------
    abi : str
        ABI by which ``nr`` counts.
    nr : int
        System call number.
    args : sequence of int
        The six recorded arguments.
    texts : mapping of int to Text, optional
        What its pointers point at.

    >>> call("x86_64", 257, [-100, 0x1000, 0, 0, 0, 0], {1: Text(PATH, b"/etc/passwd")})
    'openat(AT_FDCWD, "/etc/passwd", O_RDONLY)'
    """
    return calls(abi, nr, [[value] for value in args], [texts])[0]


def calls(abi: str, nr: int, args: Sequence[Sequence[int]], texts: Sequence[Texts | None] | None) -> list[str]:
    """Return many calls of one number without their results: a column per argument, and the strings of each call."""
    return _decoder(abi, nr)(args, texts)


def result(abi: str, nr: int, args: Sequence[int], ret: int, kind: int = RETURNED) -> str:
    """Return what stands after ``=``: the value, the error, or ``?`` for a call that did not return.

    >>> result("x86_64", 2, [0] * 6, -2)
    '-1 ENOENT (No such file or directory)'
    """
    if kind in (NO_RETURN, UNFINISHED):
        return "?"
    if ret > 0 and _is_plain(abi, nr):
        return str(ret)
    if ret < 0 and (name := errno_name(ret)) is not None:
        message = errno_message(ret)
        shown = f"{name} ({message})" if message else name
        return f"? {shown}" if -ret in RESTARTS else f"-1 {shown}"
    return _value(abi, call_name(abi, nr), args, ret)


def plain_results(abi: str, nr: int) -> bool:
    """Whether the result of a call of that number follows from its return value alone."""
    return call_name(abi, nr) not in ("fcntl", "fcntl64")


@cache
def _is_plain(abi: str, nr: int) -> bool:
    return call_name(abi, nr) not in {*_HEX_RESULTS, "umask", "fcntl", "fcntl64"}


def _value(abi: str, name: str, args: Sequence[int], ret: int) -> str:
    if name in _HEX_RESULTS:
        return pointer(ret) if ret else "0"
    if name == "umask":
        return octal(ret)
    if ret == 0 and name in _TIMEOUTS:
        return "0 (Timeout)"
    if name in ("fcntl", "fcntl64"):
        command = one("fcntl", args[1])
        if command == "F_GETFL":
            return f"{ret:#x} (flags {flags('open', ret, abi)})"
        if command == "F_GETFD":
            return f"{ret:#x} (flags {flags('fd', ret)})" if ret else "0"
        if command == "F_GET_SEALS":
            return f"{ret:#x} (seals {flags('seals', ret)})" if ret else "0"
    return str(signed(ret, 64))


@cache
def _decoder(abi: str, nr: int) -> Callable[[Sequence[Sequence[int]], Sequence[Texts | None] | None], list[str]]:
    """Return the function that decodes columns of one call; memory of values seen is kept between batches."""
    name = call_name(abi, nr)
    arguments = signature(abi, nr)
    if arguments is None:
        arguments = tuple(Argument(f"arg{index}", "hex") for index in range(6))
    memos = [Memo(formatter(argument.type, abi)) for argument in arguments]
    kinds = [argument.type for argument in arguments]
    shape = SHAPES.get(name)

    def decode(args: Sequence[Sequence[int]], texts: Sequence[Texts | None] | None) -> list[str]:
        columns: list[list[str]] = []
        for index, (kind, memo) in enumerate(zip(kinds, memos, strict=True)):
            if kind in ("unused", "off_hi"):
                continue
            if kind == "off_lo":
                columns.append([str(signed(low & 0xFFFFFFFF | high << 32, 64)) for low, high in zip(args[index], args[index + 1], strict=True)])
            else:
                shown = list(map(memo.__getitem__, args[index]))
                if texts is not None and any(texts):
                    _fill(shown, texts, index, kind)
                columns.append(shown)
        if shape is not None:
            rows = zip(zip(*args[: len(kinds)], strict=True), zip(*columns, strict=True), strict=True)
            return [f"{name}({', '.join(shape(abi, row, shown))})" for row, shown in rows]
        if len(columns) > 1:
            return [f"{name}({inside})" for inside in map(", ".join, zip(*columns, strict=True))]
        if columns:
            return [f"{name}({inside})" for inside in columns[0]]
        return [f"{name}()"] * len(args[0])

    return decode


def _fill(shown: list[str], texts: Sequence[Texts | None], index: int, kind: str) -> None:
    """Put what was recorded in the place of pointers."""
    if kind == "addrlen_ptr":
        for row, found in enumerate(texts):
            if found and (address := found.get(index - 1)) is not None:
                shown[row] = f"[{len(address.value)}]"
        return
    for row, found in enumerate(texts):
        if found and (text := found.get(index)) is not None:
            shown[row] = f"{{msg_name={_text(text)}, ...}}" if kind in ("msg_in", "msg_out") else _text(text)


def descriptors(text: Text) -> tuple[int, ...]:
    """Return the descriptors that a call gave back."""
    return tuple(found for (found,) in struct.iter_unpack("<i", text.value[: len(text.value) & ~3]))


def _text(text: Text) -> str:
    if text.kind == SOCKADDR:
        return sockaddr(text.value)
    if text.kind == DESCRIPTORS:
        return f"[{', '.join(map(str, descriptors(text)))}]"
    if text.kind == ADDRESSES:
        heads = [f"{{msg_hdr={{msg_name={sockaddr(address) if address else 'NULL'}, ...}}, ...}}" for address in addresses(text.value)]
        return f"[{', '.join(heads + ['...'] * text.cut)}]"
    return argv(text.value, text.cut) if text.kind == ARGV else quoted(text.value, text.cut)
