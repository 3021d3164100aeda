"""All descendants of a command are recorded, however they came to be, and nothing else."""

import subprocess

import pytest

from ringtape.schemas.tables.processes import TABLE
from tests.kernel.diary import CHILD, check_same
from tests.kernel.recording import wait_for

KINDS = {name: number for number, name in next(column.values for column in TABLE.columns if column.name == "kind").items()}
CLONE, FORK, VFORK, EXECVE, GETPPID = 56, 57, 58, 59, 110
COUNT = 200


@pytest.mark.parametrize("mode", ["threads", "forks", "daemon", "sibling", "thread-forks", "vfork", "thread-exec"])
def test_every_thread_has_exactly_its_own_calls(record, programs, diary, mode):
    done = record("--", programs("families"), mode, env=diary.env)
    trace = done.trace.check()
    check_same(trace, diary)
    assert done.status == trace.footer.exit_status
    workers = {tid for tid, calls in trace.threads.items() if sum(call.nr == GETPPID for call in calls) >= COUNT}
    assert len(workers) == {"threads": 5, "forks": 3}.get(mode, 1)


def test_exec_after_exec_in_one_process(record, programs, diary):
    trace = record("--", programs("families"), "chain", "4", env=diary.env).trace.check()
    check_same(trace, diary)
    execs = [call.ret for call in trace.calls if call.nr == EXECVE]
    assert execs == [0, -2, 0, -2, 0, -2, 0, -2, 0]
    rows = [row for row in trace.rows("processes") if row["kind"] == KINDS["exec"]]
    assert [row["argv"].split(b"\0")[1:3] for row in rows] == [[b"chain", str(left).encode()] for left in (4, 3, 2, 1, 0)]
    assert len({row["pid"] for row in rows}) == 1


def test_forks_and_exits_are_process_rows_with_parents_creators_and_statuses(record, programs, diary):
    trace = record("--", programs("families"), "forks", env=diary.env).trace.check()
    rows = trace.rows("processes")
    forks = [row for row in rows if row["kind"] == KINDS["fork"]]
    exits = {row["pid"]: row for row in rows if row["kind"] == KINDS["exit"]}
    main = diary.entries[0].pid
    children = [row["pid"] for row in forks if row["creator"] == main]
    assert len(children) == 3
    assert len(forks) == 6
    assert [exits[pid]["exit_code"] for pid in children] == [10, 11, 12]
    grandchildren = [next(row["pid"] for row in forks if row["ppid"] == child) for child in children]
    assert [exits[pid]["exit_code"] for pid in grandchildren] == [20, 21, 22]
    assert all(row["group_dead"] == 1 and row["exit_signal"] == 0 for row in exits.values())
    assert set(exits) == {main, *children, *grandchildren}
    started = {row["pid"]: row["start"] for row in forks}
    assert all(exits[pid]["start"] == started[pid] for pid in started)


def test_a_new_thread_or_process_begins_with_the_return_of_the_clone_that_made_it(record, programs, diary):
    for mode, number in (("threads", CLONE), ("forks", FORK), ("vfork", VFORK)):
        trace = record("--", programs("families"), mode, env=diary.env).trace
        born = {tid: calls[0] for tid, calls in trace.threads.items() if calls[0].kind == CHILD}
        assert born
        assert {(call.nr, call.ret, call.dur) for call in born.values()} == {(number, 0, 0)}
        made = {call.ret: call for call in trace.calls if call.nr == number and call.kind == 0}
        assert set(made) == set(born)
        assert all(made[tid].ts <= call.ts for tid, call in born.items())


def test_a_daemon_that_nobody_waits_for_is_recorded_to_its_end(record, programs, diary):
    trace = record("--", programs("families"), "daemon", env=diary.env).trace.check()
    ends = [(row["pid"], row["exit_code"]) for row in trace.rows("processes") if row["kind"] == KINDS["exit"]]
    assert ends[-1][1] == 33
    daemon = ends[-1][0]
    assert trace.threads[daemon][-1].nr == 231
    assert trace.threads[daemon][-1].ts > next(call.ts for call in trace.calls if call.nr == 231 and call.tid == diary.entries[0].tid)


def test_the_thread_that_execs_goes_on_under_the_number_of_the_process(record, programs, diary):
    trace = record("--", programs("families"), "thread-exec", env=diary.env).trace.check()
    (row,) = [row for row in trace.rows("processes") if row["kind"] == KINDS["exec"] and row["creator"] != row["tid"]]
    main = diary.entries[0].tid
    assert row["pid"] == row["tid"] == main
    assert row["creator"] in trace.threads
    (execve,) = [call for call in trace.calls if call.nr == EXECVE and call.ts > trace.threads[row["creator"]][0].ts]
    assert (execve.tid, execve.ret, execve.kind) == (main, 0, 0)
    (pause,) = [call for call in trace.threads[main] if call.nr == 34]
    assert (pause.kind, pause.ret) == (0, -514)  # killed on its way out of the call
    assert pause.ts + pause.dur <= execve.ts + execve.dur


def test_no_wait_ends_with_the_command_and_leaves_the_daemon_alone(record, open_folder):
    marker = open_folder / "daemon-went-on"
    script = f"setsid sh -c 'until [ -e {marker}.go ]; do sleep 0.01; done; touch {marker}' </dev/null >/dev/null 2>&1 & exit 6"
    done = record("--no-wait", "--", "sh", "-c", script)
    assert done.status == 6
    done.trace.check()
    assert not marker.exists()
    subprocess.run(["touch", f"{marker}.go"], check=True)
    wait_for(marker.exists, "the daemon goes on unrecorded")
