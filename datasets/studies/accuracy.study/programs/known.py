"""Makes system calls whose number, errors, bytes and durations are known, and prints them as JSON.

    python3 -I -S known.py calls|threads|processes|burst [SCALE]

It makes only calls that neither the interpreter nor the C library makes by itself, so that what it knows is the whole truth of its
processes: getppid, getpgid, sched_yield, rmdir (of folders that are not there), pwrite64, preadv2 and clock_nanosleep.
"""

import json
import os
import sys
import tempfile
import threading
import time

truth = {}


def note(name, count, errors=0, spent=None, moved=None):
    """Add calls to the truth."""
    entry = truth.setdefault(name, {"count": 0, "errors": 0})
    entry["count"] += count
    entry["errors"] += errors
    if spent is not None:
        entry["time"] = entry.get("time", 0) + spent
    if moved is not None:
        entry["bytes"] = entry.get("bytes", 0) + moved


def repeat(call, count):
    """Make a call so many times."""
    for _ in range(count):
        call()


def calls(scale):
    """Make a thread's calls of every kind, some of which fail."""
    repeat(os.getppid, 20_000 * scale)
    note("getppid", 20_000 * scale)
    failed = 0
    for number in range(2_000 * scale):
        try:
            os.rmdir(f"/nonexistent/{number}")  # noqa: PTH106 - one call, and nothing else
        except FileNotFoundError:
            failed += 1
    note("rmdir", 2_000 * scale, failed)
    with tempfile.TemporaryFile(buffering=0) as file:
        written = sum(os.pwrite(file.fileno(), b"x" * (number % 1000 + 1), 0) for number in range(3_000 * scale))
        buffer = bytearray(4_096)
        read = sum(os.preadv(file.fileno(), [buffer], number % 1000) for number in range(3_000 * scale))
    note("pwrite64", 3_000 * scale, moved=written)
    note("preadv2", 3_000 * scale, moved=read)
    spent = 0
    for _ in range(20 * scale):
        before = time.monotonic_ns()
        time.sleep(0.01)
        spent += time.monotonic_ns() - before
    note("clock_nanosleep", 20 * scale, spent=spent)


def threads(scale):
    """Make calls in many threads at once."""
    many = [threading.Thread(target=repeat, args=(os.sched_yield, 2_000 * scale)) for _ in range(16)]
    for one in many:
        one.start()
    for one in many:
        one.join()
    note("sched_yield", 16 * 2_000 * scale)


def processes(scale):
    """Make calls in processes that live for a moment."""
    for _ in range(300 * scale):
        child = os.fork()
        if child == 0:
            repeat(os.getppid, 50)
            os._exit(0)
        os.waitpid(child, 0)
    note("getppid", 300 * scale * 50)


def burst(scale):
    """Make calls as fast as one thread can."""
    group = os.getpgid
    for _ in range(200_000 * scale):
        group(0)
    note("getpgid", 200_000 * scale)


if __name__ == "__main__":
    {one.__name__: one for one in (calls, threads, processes, burst)}[sys.argv[1]](int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    print(json.dumps({"calls": truth}))
