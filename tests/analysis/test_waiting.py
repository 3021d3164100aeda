"""What a blocked thread waits for: descriptors of every kind, made by recorded calls or open before, and calls without one."""

import polars as pl
import pytest

import ringtape
from ringtape.analysis.analyses.ledger import ledger
from ringtape.analysis.analyses.offcpu import offcpu
from ringtape.analysis.analyses.where import where
from ringtape.analysis.plots.sched import PLACES
from ringtape.analysis.waiting import BY_CALL, ELSE, KINDS
from tests.factory import T0, make

READ, WRITE, CLOSE, MMAP, SENDFILE, SOCKET, RECVFROM, FCNTL, OPENAT, PIPE, SOCKETPAIR, EVENTFD, TIMERFD, MEMBARRIER, FSYNC = (
    0, 1, 3, 9, 40, 41, 45, 72, 257, 293, 53, 290, 283, 324, 74
)  # fmt: skip
INTERRUPTIBLE, UNINTERRUPTIBLE, DEAD = 1, 2, 128
STEP = 1000
TIME = 100


def pair(one, other):
    return one.to_bytes(4, "little") + other.to_bytes(4, "little")


MADE = (  # call, arguments, result, its string
    (PIPE, (), 0, pair(3, 4)),
    (SOCKETPAIR, (1, 1), 0, pair(5, 6)),
    (SOCKET, (2, 1), 7, None),
    (SOCKET, (16, 3), 8, None),
    (OPENAT, (-100, 1), 9, b"/dev/pts/3"),
    (OPENAT, (-100, 1), 10, b"/var/data"),
    (EVENTFD, (), 11, None),
    (TIMERFD, (1,), 12, None),
)
BLOCKED = (  # call, arguments, state in which it blocks, what for
    (READ, (3,), INTERRUPTIBLE, "pipe"),
    (WRITE, (4,), UNINTERRUPTIBLE, "pipe"),  # the lock of the pipe
    (READ, (5,), INTERRUPTIBLE, "unix socket"),
    (RECVFROM, (6,), INTERRUPTIBLE, "unix socket"),
    (READ, (7,), INTERRUPTIBLE, "network"),
    (RECVFROM, (7,), INTERRUPTIBLE, "network"),
    (RECVFROM, (99,), INTERRUPTIBLE, "network"),  # nothing is known of that descriptor
    (RECVFROM, (8,), INTERRUPTIBLE, "other"),
    (READ, (9,), INTERRUPTIBLE, "terminal"),
    (READ, (10,), INTERRUPTIBLE, "other"),
    (READ, (10,), UNINTERRUPTIBLE, "disk"),
    (READ, (99,), UNINTERRUPTIBLE, "disk"),
    (READ, (99,), INTERRUPTIBLE, "other"),
    (FSYNC, (10,), UNINTERRUPTIBLE, "disk"),
    (READ, (11,), INTERRUPTIBLE, "poll"),
    (READ, (12,), INTERRUPTIBLE, "sleep"),
    (READ, (20,), INTERRUPTIBLE, "pipe"),  # open before the recording
    (FCNTL, (10, 7), INTERRUPTIBLE, "lock"),
    (FCNTL, (10, 3), INTERRUPTIBLE, "other"),
    (SENDFILE, (7, 10), INTERRUPTIBLE, "network"),
    (SENDFILE, (7, 10), UNINTERRUPTIBLE, "disk"),
    (SENDFILE, (10, 3), INTERRUPTIBLE, "pipe"),
    (MMAP, (0, 4096), UNINTERRUPTIBLE, "memory"),
    (MEMBARRIER, (8,), UNINTERRUPTIBLE, "other"),  # no descriptor, no path: no disk
    (-5, (), UNINTERRUPTIBLE, "other"),
)


@pytest.fixture
def trace(tmp_path):
    """A thread that makes descriptors and then blocks once in each call, 100 of every 1,000 ns."""
    calls, paths, stays = [], [], []
    at = 0
    for nr, args, ret, value in MADE:
        at += 10
        calls.append({"ts": T0 + at, "dur": 5, "nr": nr, "abi": 1, "pid": 7, "tid": 7, "ret": ret} | {f"arg{i}": arg for i, arg in enumerate(args)})
        if value is not None:
            kind = 0 if nr == OPENAT else 2
            arg = {OPENAT: 1, PIPE: 0, SOCKETPAIR: 3}[nr]
            paths.append({"ts": T0 + at, "nr": nr, "abi": 1, "pid": 7, "tid": 7, "arg": arg, "kind": kind, "value": value})
    begin = 0
    for number, (nr, args, state, _) in enumerate(BLOCKED):
        at = (number + 1) * STEP
        calls.append({"ts": T0 + at, "dur": 500, "nr": nr, "abi": 1, "pid": 7, "tid": 7} | {f"arg{i}": arg for i, arg in enumerate(args)})
        stays.append({"ts": T0 + begin, "dur": at + 200 - begin, "slice": number, "state": state, "pid": 7, "tid": 7})
        begin = at + 200 + TIME
    stays.append({"ts": T0 + begin, "dur": 2 * STEP, "slice": len(BLOCKED), "state": DEAD, "pid": 7, "tid": 7})
    there = [{"ts": T0, "pid": 7, "fd": 20, "flags": 0, "target": b"pipe:[4711]"}]
    born = [{"ts": T0, "kind": 0, "pid": 7, "tid": 7, "comm": b"prog"}]
    return ringtape.open(make(tmp_path / "w.trace", sched=stays, syscalls=calls, paths=paths, descriptors=there, processes=born))


def by_number(frame):
    return {(row["syscall"], row["reason"]): row["time"] for row in frame.iter_rows(named=True)}


def expected(rows):
    from ringtape.schemas.abi.syscalls import names

    found = {}
    for nr, _, _, reason in rows:
        key = (names("x86_64").get(nr, f"unknown ({nr})"), reason)
        found[key] = found.get(key, 0) + TIME
    return found


def test_every_blocked_call_says_what_it_waited_for(trace):
    assert by_number(ledger(trace).filter(pl.col("where") == "blocked")) == expected(BLOCKED)
    found = offcpu(trace).group_by("syscall", "reason").agg(pl.col("time").sum())
    assert by_number(found) == expected(BLOCKED)


def test_descriptors_are_followed_from_before_a_window(trace):
    late = trace.between(STEP, 6 * STEP)
    assert by_number(ledger(late).filter(pl.col("where") == "blocked")) == expected(BLOCKED[:5])
    assert by_number(offcpu(late).group_by("syscall", "reason").agg(pl.col("time").sum())) == expected(BLOCKED[:5])


def test_typing_is_waited_for_by_intention(trace):
    last = where(trace).filter(pl.col("rank").is_null())
    intended = sum(TIME for *_, reason in BLOCKED if reason in ("poll", "sleep", "terminal"))
    assert last["time"].to_list() == [intended]


def test_every_reason_has_a_colour_of_its_own():
    assert set(BY_CALL) <= set(KINDS)
    colours = [PLACES[f"blocked: {reason}"] for reason in KINDS]
    assert ELSE in KINDS
    assert len(set(PLACES.values())) == len(PLACES)
    assert len(colours) == len(KINDS)
