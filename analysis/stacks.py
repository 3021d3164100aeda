"""Stacks of the table ``samples`` with the names of their functions: each different stack once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ringtape.analysis.address_spaces import AddressSpaces
from ringtape.analysis.demangling import demangled
from ringtape.analysis.symbols import Symbols, functions_told, is_file, kernel_functions
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.escape import escape

Of = Literal["cpu", "offcpu"]
KERNEL_FRAMES, USER_FRAMES = 63, 127
VDSO = b"[vdso]"
CUT = "[deeper]"
"""Stands at the root of stacks of which the kernel gave no more frames."""


@dataclass(frozen=True)
class Stacks:
    """Different stacks and what they stand for.

    Attributes
    ----------
    groups : DataFrame
        One row per stack: ``pid``, ``count`` (samples or absences) and ``time`` (ns).
    frames : list of int arrays
        The functions of each, innermost first, as places in ``names``.
    names, modules : list of str
        Function and file of each.
    lost : int
        Samples that were lost: no stack is known of them.
    unmapped : int
        Mappings that were lost: frames may lack their names for it.
    """

    groups: pl.DataFrame
    frames: list[NDArray[np.int64]]
    names: list[str]
    modules: list[str]
    lost: int
    unmapped: int


def stacks(trace: Trace, of: Of = "cpu", symbols: Path | None = None) -> Stacks:
    """Gather the stacks of a trace.

    Parameters
    ----------
    trace : Trace
        The recording.
    of : {"cpu", "offcpu"}
        Stacks that a timer found on a CPU, or of threads that had left it.
    symbols : path, optional
        Where to look first for files with symbols.

    Raises
    ------
    RingtapeError
        If the trace holds no such stacks, because they were not asked for when it was recorded.
    """
    trace.require("samples", "mappings", "symbols")
    options = trace.header.options
    frequency = options.get("profile")
    if of == "cpu" and frequency == 0:
        raise RingtapeError(f"{trace.path}: no stacks of running threads were recorded", "record again with --profile 99")
    if of == "offcpu" and options.get("offcpu_stacks", 0) is None:
        raise RingtapeError(f"{trace.path}: no stacks of threads off their CPU were recorded", "record again with --offcpu-stacks")
    spaces = AddressSpaces(trace.collect(trace.scan("mappings")).iter_rows(named=True))
    frame = trace.scan("samples").filter(pl.col("kind") == 0 if of == "cpu" else pl.col("kind") != 0)
    space = pl.struct("pid", "ts").map_batches(
        lambda rows: pl.Series(spaces.at(rows.struct.field("pid").to_numpy(), rows.struct.field("ts").to_numpy())),
        return_dtype=pl.Int32,
        is_elementwise=True,
    )
    period = 1e9 / frequency if isinstance(frequency, int) and frequency > 0 else 0.0
    time = pl.col("dur").sum() if of == "offcpu" else (pl.len().cast(pl.Float64) * period).round().cast(pl.Int64)
    grouped = (
        frame.with_columns(space.alias("space"))
        .group_by("pid", "space", "kernel", "user")
        .agg(pl.len().cast(pl.Int64).alias("count"), time.alias("time"))
    )
    groups = trace.collect(grouped).sort("pid", "time", "user", "kernel", descending=[False, True, False, False])
    frames, names, modules = _named(trace, groups, spaces, Symbols(symbols, _last_mapped(trace)), exact=of == "cpu")
    return Stacks(groups.select("pid", "count", "time"), frames, names, modules, trace.lost().get("samples", 0), spaces.lost)


def _last_mapped(trace: Trace) -> int:
    """Return the time of day, in ns, of the last mapping."""
    last = trace.collect(trace.scan("mappings").select(pl.col("ts").max())).item()
    return int(last or 0) - trace.header.clock.mono + trace.header.clock.wall


def _named(
    trace: Trace, groups: pl.DataFrame, spaces: AddressSpaces, symbols: Symbols, exact: bool
) -> tuple[list[NDArray[np.int64]], list[str], list[str]]:
    """Return the frames of each stack as numbers, and the name and the file of each number."""
    numbers: dict[tuple[str, str], int] = {}

    def number(name: str, module: str) -> int:
        return numbers.setdefault((name, module), len(numbers))

    kernel, kernel_counts = _addresses(groups["kernel"])
    user, user_counts = _addresses(groups["user"])
    # Above the innermost frame stand return addresses: the call was before. In the kernel's part the innermost is one as
    # well, unless a timer found it there; in the program's part, behind a kernel part, it is where a system call returns to.
    kernel_calls = np.ones(len(kernel), np.bool_)
    if exact:
        kernel_calls[_firsts(kernel_counts)] = False
    user_calls = np.ones(len(user), np.bool_)
    user_calls[_firsts(user_counts)] = False
    kernel_ids, user_ids = np.empty(len(kernel), np.int64), np.empty(len(user), np.int64)
    if len(kernel):
        table = trace.collect(trace.scan("symbols").filter(pl.col("address") < 0).select("address", "name"))
        known = kernel_functions(table["address"].to_numpy(), table["name"].to_list())
        distinct, back = np.unique(kernel - kernel_calls, return_inverse=True)
        texts = [
            f"[kernel]+{address:#x}" if name is None else escape(name) for name, address in zip(known.at(distinct), distinct.tolist(), strict=True)
        ]
        kernel_ids = np.array([number(f"{text}_[k]", "[kernel]") for text in texts], np.int64)[back]
    wanted = user - (user_calls & (user > 0))
    named = _of_programs(trace, groups.select("pid", "space"), user_counts, wanted, spaces, symbols)
    meant = demangled({name for _, _, functions in named for name, _ in functions})
    for mine, back, functions in named:
        user_ids[mine] = np.array([number(meant.get(name, name), module) for name, module in functions], np.int64)[back]
    cut = number(CUT, "") if (user_counts == USER_FRAMES).any() or (kernel_counts == KERNEL_FRAMES).any() else -1
    parts = (
        zip(np.split(kernel_ids, np.cumsum(kernel_counts)[:-1]), np.split(user_ids, np.cumsum(user_counts)[:-1]), strict=True) if len(groups) else ()
    )
    frames = []
    switch = numbers.get(("__schedule_[k]", "[kernel]"), -1) if not exact else -1
    for whole, outer in parts:
        # The tracepoint that took the stack is no part of it; how many frames it has depends on who else listens.
        inner = whole[int(np.argmax(whole == switch)) :] if switch in whole[:3] else whole
        pieces = [inner, np.array([cut])] if len(whole) == KERNEL_FRAMES else [inner]
        pieces += [outer, np.array([cut])] if len(outer) == USER_FRAMES else [outer]
        frames.append(np.concatenate(pieces).astype(np.int64))
    return frames, [name for name, _ in numbers], [module for _, module in numbers]


_Places = tuple[NDArray[np.bool_], NDArray[np.int64], list[tuple[str, str]]]
"""Some addresses, and for each of them which of these functions, with their files, it is in."""


def _of_programs(
    trace: Trace, groups: pl.DataFrame, counts: NDArray[np.int64], addresses: NDArray[np.uint64], spaces: AddressSpaces, symbols: Symbols
) -> list[_Places]:
    """Name the addresses in programs, of which each stack has some, file by file, and process by process what is in no file."""
    pids, owners = np.repeat(groups["pid"].to_numpy(), counts), np.repeat(groups["space"].to_numpy(), counts)
    files, places = np.full(len(addresses), -1, np.int64), addresses.copy()
    for space in np.unique(owners):
        mine = owners == space
        files[mine], places[mine] = spaces.find(int(space), addresses[mine])
    beside = trace.collect(trace.scan("symbols").filter(pl.col("address") >= 0).select("pid", "address", "length", "name"))
    known = {pid: functions_told(rows) for (pid,), rows in beside.group_by("pid")}
    named: list[_Places] = []
    compiled = np.zeros(len(addresses), np.bool_)
    loose = np.isin(files, [-1, *(number for number, file in enumerate(spaces.files) if not is_file(file))])
    for pid in np.unique(pids[loose]) if len(known) > (0 in known) else ():
        if (functions := known.get(int(pid))) is None:
            continue
        mine = loose & (pids == pid)
        distinct, back = np.unique(addresses[mine], return_inverse=True)
        names = functions.at(distinct)
        inside = np.array([name is not None for name in names])[back]
        mine[mine] = inside
        compiled |= mine
        named.append((mine, back[inside], [("" if name is None else escape(name), "[jit]") for name in names]))
    for number in np.unique(files[~compiled]):
        mine = (files == number) & ~compiled
        distinct, back = np.unique(places[mine], return_inverse=True)
        if number < 0:
            functions_here = [(f"[unknown]+{address:#x}", "[unknown]") for address in distinct.tolist()]
        else:
            file = spaces.files[number]
            module = symbols.module(file)
            told = known[0].at(distinct) if file.path == VDSO and 0 in known else None
            functions_here = [(name, module) for name in symbols.names(file, distinct, told)]
        named.append((mine, back, functions_here))
    return named


def _addresses(column: pl.Series) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return all addresses of a column of stacks, one after the other, and how many each stack has."""
    values = [value[: len(value) - len(value) % 8] for value in column.to_list()]
    return np.frombuffer(b"".join(values), "<u8").astype(np.uint64), np.array([len(value) // 8 for value in values], np.int64)


def _firsts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    begins = np.cumsum(counts) - counts
    return begins[counts > 0]
