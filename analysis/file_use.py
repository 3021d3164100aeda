"""What calls did with each file: the calls of a trace, window by window, each put under the name of what it works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.descriptors import AT_FDCWD, EBADF, Follower, pair_name
from ringtape.analysis.file_calls import IMPLICIT, MAP_ANONYMOUS, NO_POSITION, Bytes, Op, among, argument, descriptor, shapes
from ringtape.analysis.file_events import ARGS, file_events, is_wanted, windows
from ringtape.analysis.file_names import FILE, OTHER, SOCKET, UNKNOWN, Names
from ringtape.analysis.ledger import CHILD
from ringtape.analysis.positions import SEEK, Positions
from ringtape.analysis.trace import Trace
from ringtape.schemas.abi.errors import MAX_ERRNO

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
I386 = 2
SUMS = ("calls", "also", "time", "read_time", "write_time", "reads", "writes", "bytes_read", "bytes_written", "placed", "sequential",
        "errors", "mapped", "doubtful")  # fmt: skip
KEYS = ("name", "pid")


@dataclass(frozen=True)
class Use:
    """What was found.

    Every frame has a row per ``name`` and ``pid``: ``sums`` what its calls did, ``failed`` (also by ``ret``) how many failed,
    ``opens`` how often a call made it, ``remaining`` how many descriptors mean it at the end.
    """

    names: Names
    sums: pl.DataFrame
    failed: pl.DataFrame
    opens: pl.DataFrame
    remaining: pl.DataFrame


def file_use(trace: Trace, doubts: list[tuple[int, int]]) -> Use:
    """Put every call that names a descriptor or a path under what it works on.

    Parameters
    ----------
    trace : Trace
        The recording.
    doubts : list of (int, int)
        Stretches of time in which calls were lost that change descriptors: what was made before one and is used after its
        begin is counted as doubtful.
    """
    reader = _Reader(trace, doubts)
    pieces: list[pl.DataFrame] = []
    failed: list[pl.DataFrame] = []
    for since, until in reader.cuts:
        sums, errors = reader.window(since, until)
        pieces.append(sums)
        failed.append(errors)
    sums = pl.concat(pieces).group_by(KEYS).agg(pl.col(SUMS).sum())
    errors = pl.concat(failed).group_by(*KEYS, "ret").agg(pl.col("count").sum())
    made = pl.DataFrame({"name": np.frombuffer(reader.follower.file_names, np.int64), "pid": np.frombuffer(reader.follower.makers, np.int64)})
    opens = made.filter(pl.col("pid") > 0).group_by(KEYS).agg(pl.len().cast(pl.Int64).alias("opens"))
    still = [(*place, count) for place, count in reader.follower.still_open().items()]
    remaining = pl.DataFrame(still, schema={"name": pl.Int64, "pid": pl.Int64, "still_open": pl.Int64}, orient="row")
    return Use(reader.names, sums, errors, opens, remaining)


class _Reader:
    """The calls of a trace, and what is known of descriptors at every time."""

    def __init__(self, trace: Trace, doubts: list[tuple[int, int]]) -> None:
        self._trace = trace
        self.names = Names()
        self.follower = Follower(self.names)
        self.cuts = windows(trace)
        self.follower.follow(file_events(trace, self.cuts))
        self._threads, self._places, self._descriptors, self._folders = self.follower.timelines()
        self._file_names = np.frombuffer(self.follower.file_names, np.int64)
        births = np.frombuffer(self.follower.births, np.int64)
        appends = np.frombuffer(self.follower.appends, np.int8) != 0
        self._positions = Positions(np.frombuffer(self.follower.positions, np.int64), appends)
        self._doubtful_from = _doubtful_from(births, doubts)
        self._folders_doubtful_from = min((begin for begin, _ in doubts), default=(1 << 63) - 1)

    def window(self, since: int | None, until: int | None) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the sums and the errors of the calls of a window."""
        wanted = self._trace.scan("syscalls", since, until).filter(pl.col("kind") != CHILD, is_wanted(self._trace))
        frame = self._trace.collect(wanted.select("ts", "dur", "ret", *ARGS, "tid", "pid", "nr", "abi", "kind"))
        index = shapes().index(frame["abi"].to_numpy(), frame["nr"].to_numpy())
        anonymous = (shapes().column("maps", index) == 1) & (frame["arg3"].to_numpy() & MAP_ANONYMOUS != 0)
        keep = shapes().touches(index) & ~anonymous
        return _Window(self, frame.filter(pl.Series(keep)), index[keep], self._strings(since, until)).sums()

    def _strings(self, since: int | None, until: int | None) -> pl.DataFrame:
        if "paths" not in self._trace.tables:
            return pl.DataFrame(schema={"tid": pl.Int32, "ts": pl.Int64, "arg": pl.Int8, "value": pl.Binary})
        paths = self._trace.scan("paths", since, until).filter(pl.col("kind") == 0)
        frame = self._trace.collect(paths.select("tid", "ts", "arg", "value"))
        return frame.unique(["tid", "ts", "arg"], keep="first", maintain_order=True)

    def tables(self, tid: Ints, pid: Ints, ts: Ints) -> Ints:
        """Return the table of each thread; of a thread that nothing names, that of its process."""
        found = self._threads.at(tid, ts)
        lacking = np.flatnonzero(found < 0)
        if len(lacking):
            found[lacking] = self._threads.at(pid[lacking], ts[lacking])
        return found

    def files(self, table: Ints, fd: npt.NDArray[np.int32], ts: Ints) -> Ints:
        """Return the open file of each descriptor; -1 where it is not known."""
        return self._descriptors.at(np.where(table < 0, -1, table << 32 | fd.astype(np.int64) & 0xFFFFFFFF), ts)

    def named(self, files: Ints) -> Ints:
        """Return the names of open files; -1 for those that are not known."""
        if not len(self._file_names):
            return np.full(len(files), -1, np.int64)
        return np.where(files >= 0, self._file_names[files], -1)

    def working_folders(self, tid: Ints, pid: Ints, ts: Ints) -> Ints:
        """Return the name of each thread's working folder; -1 where it is not known."""
        places = self._places.at(tid, ts)
        lacking = np.flatnonzero(places < 0)
        places[lacking] = self._places.at(pid[lacking], ts[lacking])
        return self._folders.at(places, ts)

    def doubtful(self, files: Ints, ts: Ints) -> Bools:
        """Return which look-ups of a descriptor reach across a loss."""
        if not len(self._doubtful_from):
            return np.zeros(len(files), np.bool_)
        result: Bools = (files >= 0) & (ts > self._doubtful_from[files])
        return result

    def folders_doubtful(self, ts: Ints) -> Bools:
        """Return which look-ups of a working folder reach across a loss."""
        result: Bools = ts > self._folders_doubtful_from
        return result

    def sequential(self, *columns: Any) -> Bools:
        """Return which accesses are sequential: see `positions.Positions.sequential`."""
        return self._positions.sequential(*columns)


def _doubtful_from(births: Ints, doubts: list[tuple[int, int]]) -> Ints:
    ends = np.array(sorted(end for _, end in doubts), np.int64)
    begins = np.array([begin for _, begin in sorted((end, begin) for begin, end in doubts)], np.int64)
    earliest = np.append(np.minimum.accumulate(begins[::-1])[::-1], (1 << 63) - 1)
    return earliest[np.searchsorted(ends, births, "right")]


class _Window:
    """Calls of one stretch of time as columns."""

    def __init__(self, reader: _Reader, frame: pl.DataFrame, index: npt.NDArray[np.int16], strings: pl.DataFrame) -> None:
        self._reader, self._frame, self._index, self._strings = reader, frame, index, strings
        self._args = [frame[name].to_numpy() for name in ARGS]
        self._ts, self._dur, self._ret = (frame[name].to_numpy() for name in ("ts", "dur", "ret"))
        self._tid, self._pid = (frame[name].to_numpy().astype(np.int64) for name in ("tid", "pid"))
        self._kind = frame["kind"].to_numpy()
        self._done = (self._kind == 0) | (self._kind == 2)
        self._count = np.where(self._done, np.maximum(self._ret, 0), 0)
        self._table = reader.tables(self._tid, self._pid, self._ts)
        self._doubtful = np.zeros(len(frame), np.bool_)

    def _shape(self, name: str) -> npt.NDArray[np.int8]:
        return shapes().column(name, self._index)

    def sums(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the sums by name and process, and the errors."""
        name, file = self._targets("fd", "path", "folder", self._doubtful)
        way = self._shape("bytes")
        failed = (self._ret < 0) & (self._ret >= -MAX_ERRNO)
        taken = among(way, (Bytes.READ, Bytes.TO_SECOND))
        given = among(way, (Bytes.WRITTEN, Bytes.FROM_SECOND))
        second = np.flatnonzero((self._shape("fd2") >= 0) | (self._shape("path2") >= 0))
        name2, file2 = self._targets("fd2", "path2", "folder2", np.zeros(len(name), np.bool_), second)
        own, beside = self._placed(file, file2, second, taken | given)
        zero = np.zeros(len(second), np.int64)
        first = self._rows(
            name, self._pid, calls=np.ones(len(name), np.int64), time=self._dur, read_time=self._dur * taken, write_time=self._dur * given,
            reads=taken, writes=given, bytes_read=self._count * taken, bytes_written=self._count * given, placed=own[0],
            sequential=own[1], errors=failed, mapped=self._shape("maps"), doubtful=self._doubtful,
        )  # fmt: skip
        to, back = way[second] == Bytes.TO_SECOND, way[second] == Bytes.FROM_SECOND
        count = self._count[second]
        others = self._rows(
            name2, self._pid[second], also=zero + 1, reads=back, writes=to, bytes_read=count * back, bytes_written=count * to,
            placed=beside[0], sequential=beside[1],
        )  # fmt: skip
        sums = pl.concat([first, others]).group_by(KEYS).agg(pl.col(SUMS).sum())
        errors = pl.DataFrame({"name": name[failed], "pid": self._pid[failed], "ret": self._ret[failed]})
        return sums, errors.group_by(*KEYS, "ret").agg(pl.len().cast(pl.Int64).alias("count"))

    def _rows(self, name: Ints, pid: Ints, **given: npt.NDArray[Any]) -> pl.DataFrame:
        """Return the sums of some touches by name and process; what is not given is 0."""
        frame = pl.DataFrame({"name": name, "pid": pid, **{column: values.astype(np.int64, copy=False) for column, values in given.items()}})
        sums = frame.lazy().group_by(KEYS).agg(pl.col(list(given)).sum()).collect()
        return sums.select(*KEYS, *(pl.col(name) if name in given else pl.lit(0, pl.Int64).alias(name) for name in SUMS))

    # What calls work on.

    def _targets(self, fd: str, path: str, folder: str, doubtful: Bools, rows: Ints | None = None) -> tuple[Ints, Ints]:
        """Return name and open file (-1 for none) of what calls work on; mark what is doubtful. ``rows``: of these alone."""
        rows = np.arange(len(self._index)) if rows is None else rows
        by_fd, by_path, by_folder = (self._shape(name)[rows] for name in (fd, path, folder))
        args = [values[rows] for values in self._args]
        name, file = np.full(len(rows), -1, np.int64), np.full(len(rows), -1, np.int64)
        numbers = descriptor(argument(args, by_fd))
        makes = (by_path < 0) & ((by_fd < 0) | ((self._shape("op")[rows] == Op.SIGNALFD) & (numbers < 0)))
        at = np.flatnonzero((by_fd >= 0) & (by_path < 0) & ~makes)
        name[at], file[at] = self._descriptors(rows[at], numbers[at], doubtful)
        at = np.flatnonzero(by_path >= 0)
        if len(at):
            pointers = argument([values[at] for values in args], by_path[at])
            folders = descriptor(argument([values[at] for values in args], by_folder[at]))
            name[at] = self._paths(rows[at], by_path[at], pointers, np.where(by_folder[at] >= 0, folders, AT_FDCWD), by_folder[at] >= 0, doubtful)
        at = np.flatnonzero(makes)
        name[at] = self._made(rows[at])
        return name, file

    def _descriptors(self, rows: Ints, fd: npt.NDArray[np.int32], doubtful: Bools) -> tuple[Ints, Ints]:
        file = self._reader.files(self._table[rows], fd, self._ts[rows])
        name = self._reader.named(file)
        doubtful[rows] = self._reader.doubtful(file, self._ts[rows])
        lacking = np.flatnonzero(name < 0)
        unknown = {int(value): self._reader.names.unknown(int(value)) for value in np.unique(fd[lacking])}
        name[lacking] = [unknown[value] for value in fd[lacking].tolist()]
        name[lacking[self._ret[rows[lacking]] == -EBADF]] = self._reader.names.not_open
        return name, file

    def _paths(self, rows: Ints, arg: npt.NDArray[np.int8], pointer: Ints, folder: npt.NDArray[np.int32], has_folder: Bools, doubtful: Bools) -> Ints:
        names = self._reader.names
        asked = pl.DataFrame({"tid": self._tid[rows].astype(np.int32), "ts": self._ts[rows], "arg": arg})
        found = asked.join(self._strings, on=["tid", "ts", "arg"], how="left", maintain_order="left")["value"]
        whole = found.bin.starts_with(b"/").fill_null(True).to_numpy()
        given = found.is_not_null().to_numpy()
        # A null pointer, where a descriptor stands beside it, means the descriptor itself, as an empty path does.
        itself = has_folder & np.where(given, (found.bin.size() == 0).fill_null(False).to_numpy(), pointer == 0)
        relative = np.flatnonzero(~whole | itself)
        above = np.full(len(rows), -1, np.int64)
        here = folder[relative] == AT_FDCWD
        at = relative[here]
        above[at] = self._reader.working_folders(self._tid[rows[at]], self._pid[rows[at]], self._ts[rows[at]])
        doubtful[rows[at]] = (above[at] >= 0) & self._reader.folders_doubtful(self._ts[rows[at]])
        at = relative[~here]
        file = self._reader.files(self._table[rows[at]], folder[at], self._ts[rows[at]])
        above[at] = self._reader.named(file)
        doubtful[rows[at]] = self._reader.doubtful(file, self._ts[rows[at]])
        pairs = pl.DataFrame({"above": above, "value": found, "itself": itself})
        unique = pairs.unique()
        numbers = [
            above if itself and above >= 0 else names.not_recorded if value is None else names.path(above, value)
            for above, value, itself in unique.iter_rows()
        ]
        together = ["above", "value", "itself"]
        numbered = unique.with_columns(pl.Series("name", numbers, pl.Int64))
        joined = pairs.join(numbered, on=together, how="left", nulls_equal=True, maintain_order="left")
        return joined["name"].to_numpy()

    def _made(self, rows: Ints) -> Ints:
        """Name what calls made that were given nothing but flags."""
        names = self._reader.names
        ok = self._done[rows] & (self._ret[rows] >= 0)
        made = self._reader.files(self._table[rows], descriptor(self._ret[rows]), self._ts[rows] + np.maximum(self._dur[rows], 1))
        name = np.where(ok, self._reader.named(made), -1)
        op = self._shape("op")[rows]
        name[op == Op.PAIR] = -1
        for shape in np.unique(self._index[rows]):
            at = np.flatnonzero((self._index[rows] == shape) & (name < 0))
            maker = shapes().made(int(shape))
            label = names.number(maker.label.encode(), SOCKET if maker.label == "socket" else UNKNOWN if maker.label.startswith("(") else OTHER)
            name[at] = label
            if maker.op == Op.PAIR:
                for one in at[ok[at]].tolist():
                    args = [int(values[rows[one]]) for values in self._args]
                    name[one] = pair_name(names, maker, int(self._pid[rows[one]]), args)
        return name

    # Where bytes lie.

    def _placed(self, file: Ints, file2: Ints, second: Ints, moves: Bools) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
        """Return, for the first and the second file of each call, the bytes whose place is known, and how many of them are sequential."""
        rows = np.arange(len(file))
        offset = self._shape("offset").astype(np.int64)
        explicit = offset >= 0
        offset[explicit] = self._args[3][explicit]
        halves = explicit & (self._frame["abi"].to_numpy() == I386)
        offset[halves] = self._args[3][halves] & 0xFFFFFFFF | self._args[4][halves] << 32
        way = self._shape("bytes")
        # splice and copy_file_range have a pointer to an offset behind each descriptor, sendfile has one for what it reads.
        offset[(way == Bytes.TO_SECOND) & (self._args[1] == 0)] = IMPLICIT
        offset[way == Bytes.FROM_SECOND] = IMPLICIT
        offset2 = np.full(len(second), NO_POSITION, np.int64)
        offset2[(way[second] == Bytes.TO_SECOND) & (self._args[3][second] == 0)] = IMPLICIT
        offset2[(way[second] == Bytes.FROM_SECOND) & (self._args[2][second] == 0)] = IMPLICIT
        seek = self._shape("seek")
        sets = self._done & (((seek == 1) & (self._ret >= 0)) | ((seek == 2) & (self._ret == 0) & (self._args[4] == 0)))
        position = np.where(seek == 2, self._args[1] << 32 | self._args[2] & 0xFFFFFFFF, self._ret)
        moved = np.where(sets, position, self._count)
        offset[sets] = SEEK
        first = np.flatnonzero((sets | (moves & (self._count > 0) & (offset != NO_POSITION))) & self._is_file(file))
        other = np.flatnonzero((self._count[second] > 0) & (offset2 != NO_POSITION) & self._is_file(file2))
        files = np.concatenate([file[first], file2[other]])
        writes = np.concatenate([among(way[first], (Bytes.WRITTEN, Bytes.FROM_SECOND)), way[second[other]] == Bytes.TO_SECOND])
        counts = np.concatenate([moved[first], self._count[second[other]]])
        offsets = np.concatenate([offset[first], offset2[other]])
        found = self._reader.sequential(files, np.concatenate([self._ts[first], self._ts[second[other]]]), offsets, counts, writes)
        counts = np.where(offsets == SEEK, 0, counts)
        results = []
        for where, chosen, part in ((rows, first, slice(0, len(first))), (second, other, slice(len(first), None))):
            placed, sequential = np.zeros(len(where), np.int64), np.zeros(len(where), np.int64)
            placed[chosen] = counts[part]
            sequential[chosen] = counts[part] * found[part]
            results.append((placed, sequential))
        return results[0], results[1]

    def _is_file(self, file: Ints) -> Bools:
        """Return which of the open files have a position: those that a path leads to."""
        names, numbers = self._reader.names, self._reader.named(file)
        kinds = np.array([kind == FILE for _, kind in names.values] + [False], np.bool_)
        return kinds[numbers]
