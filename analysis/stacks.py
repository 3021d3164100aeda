"""Stacks of the table ``samples`` with the names of their functions: each different stack once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ringtape.analysis.address_spaces import AddressSpaces
from ringtape.analysis.symbols import Symbols, kernel_functions
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.escape import escape

Of = Literal["cpu", "offcpu"]
KERNEL_FRAMES, USER_FRAMES = 63, 127
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


def stacks(trace: Trace, of: Of = "cpu", process: int | None = None, symbols: Path | None = None) -> Stacks:
    """Gather the stacks of a trace.

    Parameters
    ----------
    trace : Trace
        The recording.
    of : {"cpu", "offcpu"}
        Stacks that a timer found on a CPU, or of threads that had left it.
    process : int, optional
        Only this process.
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
    if process is not None:
        frame = frame.filter(pl.col("pid") == process)
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
    frames, names, modules = _named(trace, groups, spaces, Symbols(symbols), exact=of == "cpu")
    return Stacks(groups.select("pid", "count", "time"), frames, names, modules, trace.lost().get("samples", 0), spaces.lost)


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
        table = trace.collect(trace.scan("symbols").select("address", "name"))
        known = kernel_functions(table["address"].to_numpy(), table["name"].to_list())
        distinct, back = np.unique(kernel - kernel_calls, return_inverse=True)
        texts = [
            f"[kernel]+{address:#x}" if name is None else escape(name) for name, address in zip(known.at(distinct), distinct.tolist(), strict=True)
        ]
        kernel_ids = np.array([number(f"{text}_[k]", "[kernel]") for text in texts], np.int64)[back]
    owners = np.repeat(groups["space"].to_numpy(), user_counts)
    wanted = user - (user_calls & (user > 0))
    files, places = np.full(len(user), -1, np.int64), wanted.copy()
    for space in np.unique(owners):
        mine = owners == space
        files[mine], places[mine] = spaces.find(int(space), wanted[mine])
    for file in np.unique(files):
        mine = files == file
        distinct, back = np.unique(places[mine], return_inverse=True)
        if file < 0:
            ids = [number(f"[unknown]+{address:#x}", "[unknown]") for address in distinct.tolist()]
        else:
            one = spaces.files[file]
            module = symbols.module(one)
            ids = [number(name, module) for name in symbols.names(one, distinct)]
        user_ids[mine] = np.array(ids, np.int64)[back]
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


def _addresses(column: pl.Series) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return all addresses of a column of stacks, one after the other, and how many each stack has."""
    values = [value[: len(value) - len(value) % 8] for value in column.to_list()]
    return np.frombuffer(b"".join(values), "<u8").astype(np.uint64), np.array([len(value) // 8 for value in values], np.int64)


def _firsts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    begins = np.cumsum(counts) - counts
    return begins[counts > 0]
