"""With rings far too small: what is recorded and what is lost add up to what was attempted, and the command is not harmed."""

import numpy as np
import pytest

from tests.kernel.load import NUMBER, STATUS, Load

LIMIT = 100_000


@pytest.mark.parametrize("size", ["4K", "64K", "syscalls=4K,paths=8M,processes=8M"])
def test_recorded_and_lost_add_up_on_every_cpu(record, programs, tmp_path, size):
    load = Load(programs("load"), tmp_path / "control", limit=LIMIT)
    done = record("--ring-size", size, "--", *load.words)
    assert done.status == STATUS
    assert load.returned == [LIMIT, LIMIT]
    trace = done.trace.check()
    lost = trace.footer.lost["syscalls"]
    assert lost > 0
    recorded = sum(1 for call in trace.calls if call.nr == NUMBER)
    ledger = sum(row["count"] for row in trace.rows("losses") if row["table"] == "syscalls" and row["nr"] == NUMBER and row["cause"] == 0)
    assert recorded + ledger == 2 * LIMIT
    assert f"{sum(trace.footer.lost.values())} LOST" in done.stderr


def test_the_missing_numbers_are_as_many_as_the_ledger_says_and_lie_between_its_times(record, programs, tmp_path):
    load = Load(programs("load"), tmp_path / "control", limit=LIMIT)
    trace = record("--ring-size", "syscalls=64K", "--", *load.words).trace.check()
    losses = [row for row in trace.rows("losses") if row["table"] == "syscalls"]
    calls = sorted((call for call in trace.calls if call.seq >= 0), key=lambda call: (call.cpu, call.seq))
    for cpu, attempted in trace.footer.attempted["syscalls"].items():
        own = [call for call in calls if call.cpu == int(cpu)]
        seq = np.array([-1, *(call.seq for call in own), attempted])
        missing = np.diff(seq) - 1
        mine = [row for row in losses if row["cpu"] == int(cpu)]
        assert missing.sum() == sum(row["count"] for row in mine)
        if not mine:
            continue
        first, last = int(np.flatnonzero(missing)[0]), int(np.flatnonzero(missing)[-1])
        start = own[first - 1].ts + own[first - 1].dur if first else trace.folder.header.attached_at
        end = own[last].ts + own[last].dur if last < len(own) else trace.footer.detached_at
        assert start <= min(row["ts"] for row in mine)
        assert max(row["until"] for row in mine) <= end


def test_the_durations_of_lost_calls_are_in_the_ledger(record, programs, tmp_path):
    load = Load(programs("load"), tmp_path / "control", threads=1, limit=LIMIT)
    trace = record("--ring-size", "syscalls=4K", "--", *load.words).trace.check()
    losses = [row for row in trace.rows("losses") if row["table"] == "syscalls"]
    for row in losses:
        # Each of `count` calls lasted from 2^bucket ns on and less than twice that; bucket 0 holds 0 and 1 ns.
        low = row["count"] << row["bucket"] if row["bucket"] else 0
        assert low <= row["sum"] < row["count"] << row["bucket"] + 1
        assert row["ts"] <= row["until"]
    recorded = sum(call.dur for call in trace.calls if call.kind == 0)
    whole = trace.footer.detached_at - trace.folder.header.attached_at
    # A thread is in one call at a time, and the main thread waits for the other all the while.
    assert recorded + sum(row["sum"] for row in losses) <= 2 * whole


def test_no_table_can_starve_another(record, programs, tmp_path):
    load = Load(programs("load"), tmp_path / "control", threads=1, limit=LIMIT)
    trace = record("--ring-size", "syscalls=4K,paths=8M,processes=8M", "--", *load.words).trace.check()
    assert trace.footer.lost["syscalls"] > 0
    assert trace.footer.lost["paths"] == trace.footer.lost["processes"] == 0
    opened = {row["value"] for row in trace.rows("paths") if row["value"].startswith(b"/nonexistent/")}
    assert opened == {f"/nonexistent/0/{i}".encode() for i in range(499, LIMIT, 500)}
