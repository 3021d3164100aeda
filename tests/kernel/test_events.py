"""Tracepoints of many families, recorded for real, against what the program says it did and against perf."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import polars as pl
import pytest

import ringtape
from ringtape.analysis.analyses.event_count import event_count
from ringtape.recorder.events import EVENTS_MAX, Choice
from ringtape.recorder.kernel import load
from ringtape.recorder.options import Options, Target, choose_tables
from ringtape.recorder.tracefs import event_names, find_tracefs, read_event
from tests.kernel.recording import check_one_error, wait_for
from tests.kernel.recording import ringtape as run
from tests.kernel.test_killed import kill, recovered

GETPPID = "syscalls:sys_enter_getppid"
CATEGORIES = (
    "sched:sched_process_fork,sched:sched_process_exec,sched:sched_process_exit,signal:signal_generate,signal:signal_deliver,"
    "syscalls:sys_enter_getppid,syscalls:sys_exit_getppid,syscalls:sys_enter_openat,raw_syscalls:sys_enter,task:task_rename,task:task_newtask,"
    "ext4:ext4_sync_file_enter,ext4:ext4_sync_file_exit,filelock:posix_lock_inode,timer:itimer_state,sock:inet_sock_set_state,"
    "net:net_dev_start_xmit,fib:fib_table_lookup,exceptions:page_fault_user,irq:softirq_entry,irq_vectors:local_timer_entry,kmem:mm_page_alloc"
)


@pytest.fixture(scope="module")
def everything(programs, tmp_path_factory):
    """One recording of everything that the program does, and what it said."""
    from tests.kernel.recording import Recorder

    folder = tmp_path_factory.mktemp("events")
    options = ("--ring-size", "32M", "--tables", "processes", "--event", CATEGORIES)
    with Recorder(folder / "run.trace", (*options, "--", programs("events"), "everything", folder)) as recorder:
        done = recorder.wait()
    assert done.status == 0, done.stderr
    done.trace.check()
    said = [line.split() for line in done.stdout.decode().splitlines()]
    facts = {name: int(value) for name, value in said if name != "child"} | {"children": [int(value) for name, value in said if name == "child"]}
    return ringtape.open(done.path), facts, folder


def rows(trace, event, *columns, **equal):
    frame = trace.event(event).filter(**equal) if equal else trace.event(event)
    return frame.select(*columns).collect().rows()


def test_calls_are_counted_and_their_results_are_right(everything):
    trace, facts, _ = everything
    assert rows(trace, GETPPID, "event_pid", "__syscall_nr") == [(facts["pid"], 110)] * 1234
    parents = rows(trace, "syscalls:sys_exit_getppid", "ret")
    assert (len(parents), len(set(parents))) == (1234, 1)
    ((parent,),) = set(parents)
    assert parent in {ppid for (ppid,) in trace.processes.filter(pid=facts["pid"]).select("ppid").collect().rows()}


def test_a_fixed_array_holds_the_arguments_as_they_were_passed(everything):
    trace, *_ = everything
    found = rows(trace, "raw_syscalls:sys_enter", "args", id=9999)
    assert [args for (args,) in found] == [[i, -i % 2**64, 3 << 40, 4, 5, 2**64 - 6] for i in range(50)]


def test_the_path_of_an_open_is_read_from_the_program(everything):
    trace, _, folder = everything
    found = rows(trace, "syscalls:sys_enter_openat", "filename", "dfd", "flags", "mode")
    assert (f"{folder}/synced", -100, os.O_CREAT | os.O_RDWR, 0o640) in found


def test_signals_are_those_that_were_sent_and_handled(everything):
    trace, facts, _ = everything
    assert (
        rows(trace, "signal:signal_generate", "comm", "pid", "result", sig=signal.SIGUSR1, event_pid=facts["pid"])
        == [("events", facts["pid"], 0)] * 7
    )
    delivered = rows(trace, "signal:signal_deliver", "sa_handler", sig=signal.SIGUSR1)
    assert len(delivered) == 7
    assert len(set(delivered)) == 1


def test_processes_and_their_dynamic_strings_are_those_that_ran(everything, programs):
    trace, facts, _ = everything
    assert rows(trace, "sched:sched_process_exec", "filename", "pid", "old_pid") == [(str(programs("events")), facts["pid"], facts["pid"])]
    forks = rows(trace, "sched:sched_process_fork", "parent_comm", "parent_pid", "child_comm", "child_pid")
    assert forks == [("events", facts["pid"], "events", child) for child in facts["children"]]
    assert len(facts["children"]) == 5
    assert [pid for _, pid in sorted(rows(trace, "sched:sched_process_exit", "event_ts", "pid"))] == [*facts["children"], facts["pid"]]
    assert rows(trace, "task:task_newtask", "pid", "comm") == [(child, "events") for child in facts["children"]]
    assert rows(trace, "task:task_rename", "oldcomm", "newcomm", pid=facts["pid"])[-1] == ("events", "known\\nname")


def test_syncs_name_the_file_s_inode_and_device(everything):
    trace, facts, folder = everything
    if subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, check=True).stdout.strip() != b"ext2/ext3":
        pytest.skip("the temporary folder is not on ext4")
    device = os.major(facts["device"]) << 20 | os.minor(facts["device"])
    assert rows(trace, "ext4:ext4_sync_file_enter", "ino", "dev", "datasync") == [(facts["inode"], device, flag) for flag in (0, 0, 0, 1)]
    assert rows(trace, "ext4:ext4_sync_file_exit", "ret", ino=facts["inode"]) == [(0,)] * 4


def test_locks_and_timers_have_the_values_that_were_asked_for(everything):
    trace, facts, _ = everything
    assert rows(trace, "filelock:posix_lock_inode", "fl_start", "fl_end", "ret", i_ino=facts["inode"])[0] == (11, 32, 0)
    assert rows(trace, "timer:itimer_state", "which", "value_sec", "value_nsec", "interval_sec", "interval_nsec") == [
        (0, 12345, 678000, 9, 10000),
        (0, 0, 0, 0, 0),
    ]


def test_connections_pass_through_their_states_and_addresses_are_bytes(everything):
    trace, facts, _ = everything
    frame = trace.event("sock:inet_sock_set_state")
    states = [pl.col("oldstate_name").str.strip_prefix("TCP_"), pl.col("newstate_name").str.strip_prefix("TCP_")]
    client = frame.filter(sport=facts["client"], dport=facts["port"]).select(*states).collect().rows()
    # Its port is known from bind on; connect() in the kernel sets the state first.
    assert client[-4:] == [("SYN_SENT", "ESTABLISHED"), ("ESTABLISHED", "FIN_WAIT1"), ("FIN_WAIT1", "FIN_WAIT2"), ("FIN_WAIT2", "CLOSE")] or client[
        -3:
    ] == [("SYN_SENT", "ESTABLISHED"), ("ESTABLISHED", "FIN_WAIT1"), ("FIN_WAIT1", "FIN_WAIT2")]
    assert frame.filter(sport=facts["port"], newstate_name="TCP_LISTEN").collect()["saddr"].to_list() == [bytes([127, 0, 0, 2])]
    assert set(frame.collect()["family_name"]) == {"AF_INET"}
    counted = event_count(trace, event="inet_sock_set_state", by="daddr")
    assert "127.0.0.2" in counted["daddr"].to_list()


def test_datagrams_leave_by_the_loopback_device_with_their_length(everything):
    trace, facts, _ = everything
    # 20 + 8 + 14: headers of IPv4, UDP and Ethernet.
    lengths = rows(trace, "net:net_dev_start_xmit", "len", name="lo", event_pid=facts["pid"], ip_summed=3)
    assert {142, 143, 144, 145} <= {length for (length,) in lengths}
    routes = rows(trace, "fib:fib_table_lookup", "dst", event_pid=facts["pid"])
    assert (bytes([127, 0, 0, 3]),) in routes


def test_page_faults_are_at_the_pages_that_were_touched(everything):
    trace, facts, _ = everything
    page = os.sysconf("SC_PAGESIZE")
    first = facts["memory"]
    found = trace.event("exceptions:page_fault_user").filter(pl.col("address").is_between(first, first + 64 * page - 1)).collect()
    assert found["address"].to_list() == [first + index * page for index in range(64)]
    assert set(found["error_code"]) == {6}  # a write from user mode to no page
    assert len(rows(trace, "kmem:mm_page_alloc", "order")) >= 64


def test_interrupts_are_told_from_what_threads_do(everything):
    trace, *_ = everything
    for name in trace.events:
        contexts = {context for (context,) in rows(trace, name, "event_context_name")}
        if name.startswith(
            ("syscalls:", "raw_syscalls:", "signal:signal_deliver", "ext4:", "exceptions:", "sched:sched_process_exec", "task:task_rename")
        ):
            assert contexts <= {"task"}, name
        if name == "irq:softirq_entry":
            assert contexts <= {"softirq"}
        if name == "irq_vectors:local_timer_entry":
            assert contexts <= {"hardirq"}


def test_every_event_that_was_asked_for_is_named_in_the_manifest_and_by_info(everything):
    trace, *_ = everything
    assert sorted(trace.events) == sorted(CATEGORIES.split(","))
    attached = {probe.name for probe in trace.header.probes if probe.attached}
    assert set(trace.events) <= attached
    assert "sock:inet_sock_set_state" in run("info", trace.path).stdout.decode()
    counted = event_count(trace)
    assert counted["count"].sum() == trace.rows("events")
    assert counted["lost"].sum() == 0


SAME = {
    GETPPID: ("", pl.lit(True), 1234),
    "signal:signal_generate": ("sig=10 ", pl.col("sig") == signal.SIGUSR1, 7),
    "sched:sched_process_fork": ("comm=events ", pl.col("parent_comm") == "events", 5),
    "ext4:ext4_sync_file_enter": ("", pl.lit(True), 4),
    "raw_syscalls:sys_enter": ("NR 9999 ", pl.col("id") == 9999, 50),
    "timer:itimer_state": ("", pl.lit(True), 2),
}


def test_perf_counts_the_same_in_the_same_run(record, programs, tmp_path):
    """Of each event what perf prints of it, and the number that the program knows: neither hides anything from the other."""
    if shutil.which("perf") is None:
        pytest.skip("perf is not installed")
    data = tmp_path / "perf.data"
    flags = [word for event in SAME for word in ("-e", event)]
    perf = ("perf", "record", "-q", "-m", "8M", "-o", data, *flags, "--", programs("events"), "everything", tmp_path)
    for _ in range(5):
        done = record("--ring-size", "64M", "--tables", "processes", "--event", ",".join(SAME), "--", *perf)
        if "stack smashing" not in done.stderr:  # perf 6.1 now and then dies of itself on newer kernels, also alone
            break
    assert done.status == 0, done.stderr
    done.trace.check()
    trace = ringtape.open(done.path)
    ((pid,),) = set(rows(trace, GETPPID, "event_pid"))
    printed = subprocess.run(["perf", "script", "-i", data, "-F", "pid,event,trace"], capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr
    assert "lost" not in printed.stderr.lower(), printed.stderr
    lines = [line.split(maxsplit=2) for line in printed.stdout.splitlines()]
    for event, (words, chosen, known) in SAME.items():
        theirs = sum(line[:2] == [str(pid), f"{event}:"] and words in f"{' '.join(line[2:])} " for line in lines)
        ours = trace.event(event).filter(chosen, event_pid=pid).select(pl.len()).collect().item()
        assert (event, ours, theirs) == (event, known, known)


def test_a_hundred_thousand_events_are_all_there_in_their_order(record, programs, tmp_path):
    done = record(
        "--ring-size",
        "64M",
        "--tables",
        "processes",
        "--event",
        f"{GETPPID},raw_syscalls:sys_exit",
        "--",
        programs("events"),
        "calls",
        tmp_path,
        "100000",
    )
    done.trace.check()
    trace = ringtape.open(done.path)
    assert len(rows(trace, GETPPID, "event_ts")) == 100_000
    assert len(rows(trace, "raw_syscalls:sys_exit", "event_ts", id=110)) == 100_000
    assert trace.event(GETPPID).collect()["event_ts"].is_sorted()
    assert event_count(trace)["skipped"].sum() == 0


def test_with_a_ring_far_too_small_recorded_and_lost_add_up_to_what_was_done(record, programs, tmp_path):
    done = record(
        "--ring-size", "events=4K,processes=1M", "--tables", "processes", "--event", GETPPID, "--", programs("events"), "calls", tmp_path, "50000"
    )
    trace = done.trace.check()
    ours = ringtape.open(done.path)
    ((_, count, _, lost, skipped),) = event_count(ours).rows()
    assert lost == trace.footer.lost["events"] > 0
    assert count + lost == 50_000
    assert skipped == 0
    assert "LOST" in done.stderr
    assert run("verify", done.path).status == 0


def test_a_process_that_runs_already_is_recorded_from_then_on(start, programs, tmp_path):
    with subprocess.Popen([programs("events"), "line", tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:

        def work():
            program.stdin.write(b"x")
            program.stdin.flush()
            assert program.stdout.read(1) == b"x"

        work()
        recorder = start("--tables", "processes", "--event", GETPPID, "--pid", str(program.pid)).wait_until_recording()
        work()
        work()
        program.stdin.close()
        program.wait()
        done = recorder.wait()
    done.trace.check()
    assert rows(ringtape.open(done.path), GETPPID, "event_pid") == [(program.pid,)] * 2000


def test_with_all_idle_tasks_and_interrupts_are_seen_and_the_recorder_is_not(start, programs, tmp_path):
    events = f"{GETPPID},sched:sched_switch,irq_vectors:local_timer_entry,irq:softirq_entry,block:block_rq_issue,workqueue:workqueue_execute_start"
    recorder = start("--ring-size", "64M", "--tables", "processes", "--event", events, "--all").wait_until_recording()
    own = recorder.process.pid
    subprocess.run([programs("events"), "everything", tmp_path], check=True, stdout=subprocess.DEVNULL)
    done = recorder.stop()
    done.trace.check()
    trace = ringtape.open(done.path)
    switches = trace.event("sched:sched_switch").collect()
    assert (switches["event_tid"] == switches["prev_pid"]).all()
    # On a busy machine no CPU may be idle; where one is, it stays in the record.
    assert set(switches.filter(prev_pid=0)["event_comm"]) <= {"swapper"}
    assert any(comm and comm.startswith("kworker") for comm in switches["event_comm"].to_list())
    for event in trace.events:
        frame = trace.event(event).filter(event_pid=own).collect()
        assert set(frame["event_context_name"]) <= {"softirq", "hardirq", "nmi"}, event
    assert set(trace.event("irq_vectors:local_timer_entry").collect()["event_context_name"]) == {"hardirq"}
    assert set(trace.event("irq:softirq_entry").collect()["event_context_name"]) == {"softirq"}
    issued = trace.event("block:block_rq_issue").collect()
    # rwbs and cmd: a fixed array of characters and a dynamic one, which no request of a file system fills.
    assert ((issued["bytes"] == 512 * issued["nr_sector"]) | (issued["bytes"] == 0)).all()
    assert set(issued["cmd"]) <= {""}
    assert all(text and set(text) <= set("WRDEFASMNUX") for text in issued["rwbs"])
    blocks = {line.split()[3]: tuple(map(int, line.split()[:2])) for line in Path("/proc/partitions").read_text().splitlines()[2:]}
    assert {(dev >> 20, dev & 0xFFFFF) for dev in issued["dev"].unique()} <= {*blocks.values(), (0, 0)}
    assert len(trace.event("workqueue:workqueue_execute_start").collect()) > 0


def test_the_books_are_balanced_however_the_end_falls_among_the_events_of_the_whole_machine(start, programs, tmp_path):
    with subprocess.Popen(["sh", "-c", "while :; do true | true; done"], stdout=subprocess.DEVNULL) as busy:
        try:
            for _ in range(4):
                events = "sched:*,task:*,signal:*"
                recorder = start("--ring-size", "32M", "--event", events, "--tables", "syscalls,processes", "--all").wait_until_recording()
                done = recorder.stop()
                done.trace.check()
                assert recorder.process.pid not in done.trace.table("processes")["ppid"].to_pylist()
        finally:
            busy.kill()


def test_a_killed_recorder_loses_no_event(start, programs, tmp_path):
    recorder = start("--ring-size", "32M", "--tables", "processes", "--event", f"{GETPPID},signal:*", "--", programs("events"), "for ever", tmp_path)
    recorder.wait_until_recording()
    wait_for(lambda: any(line["type"] == "part" and line["table"] == "events" for line in recorder.manifest()), "a part of events is sealed")
    child = int(subprocess.run(["pgrep", "-P", str(recorder.process.pid)], capture_output=True, check=True).stdout.split()[0])
    kill(recorder)
    os.kill(child, signal.SIGKILL)
    trace = recovered(recorder.path)
    for seq in trace.sequences("events").values():
        assert list(seq) == list(range(len(seq)))
    ours = ringtape.open(recorder.path)
    found = ours.event(GETPPID).collect()
    assert len(found) == trace.footer.rows["events"] - sum(len(ours.event(name).collect()) for name in ours.events if name != GETPPID)
    assert len(found) > 100
    assert run("verify", recorder.path).status == 0


def test_an_unknown_event_is_one_error_with_close_matches_and_nothing_is_run(record, tmp_path):
    marker = tmp_path / "ran"
    done = record("--event", "sched:sched_proces_exit", "--", "touch", marker)
    what, hint = check_one_error(done)
    assert (done.status, what) == (2, "no event 'sched:sched_proces_exit'")
    assert "sched:sched_process_exit" in hint
    assert not marker.exists()
    assert not done.path.exists()


def hidden(tmp_path, formats):
    """Return the words that run a command where some format files are others: None for one that cannot be read."""
    script = ""
    for number, (event, text) in enumerate(formats.items()):
        stand_in = tmp_path / f"format{number}"
        stand_in.write_text(text or "")
        target = find_tracefs() / "events" / event.replace(":", "/") / "format"
        script += f"mount --bind {stand_in} {target}; "
    return ("unshare", "-m", "sh", "-c", f'{script} exec "$@"', "sh")


def wrong_number(event):
    text = (find_tracefs() / "events" / event.replace(":", "/") / "format").read_text()
    return "\n".join("ID: 65535" if line.startswith("ID: ") else line for line in text.splitlines())


def test_an_event_that_the_kernel_does_not_describe_or_attach_is_named_and_the_rest_is_recorded(record, programs, tmp_path):
    prefix = hidden(tmp_path, {"signal:signal_deliver": None, "signal:signal_generate": wrong_number("signal:signal_generate")})
    done = record("--tables", "processes", "--event", f"signal:*,{GETPPID}", "--", programs("events"), "calls", tmp_path, "10", prefix=prefix)
    assert done.status == 0
    trace = ringtape.open(done.path)
    refused = {probe.name: probe.reason for probe in trace.header.probes if not probe.attached and ":" in probe.name}
    assert "its format file cannot be read" in refused["signal:signal_deliver"]
    assert "cannot be attached" in refused["signal:signal_generate"]
    assert all(f"{name} is not recorded: {reason}" in done.stderr for name, reason in refused.items())
    assert list(trace.events) == [GETPPID]
    assert len(rows(trace, GETPPID, "event_ts")) == 10
    done.trace.check()


def test_if_no_event_is_left_there_is_one_error_and_no_trace(record, tmp_path):
    prefix = hidden(tmp_path, {"signal:signal_generate": wrong_number("signal:signal_generate")})
    done = record("--event", "signal:signal_generate", "--", "true", prefix=prefix)
    what, hint = check_one_error(done)
    assert done.status == 1
    assert what.startswith("none of the events can be recorded (signal:signal_generate: it cannot be attached")
    assert "ringtape events" in hint
    assert not done.path.exists()


@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.soak)])
def test_the_kernel_takes_the_program_of_any_event_that_it_has(step):
    place = find_tracefs()
    events = [read_event(place, name) for name in event_names(place)[::step]]
    for first in range(0, len(events), EVENTS_MAX):
        chosen = Choice(tuple(events[first : first + EVENTS_MAX]))
        sizes = {"events": 1 << 16, "processes": 1 << 16}
        kernel = load(Options(Target(everything=True), choose_tables("events", ("events",)), ring_sizes=sizes, events=chosen))
        refused = kernel.tracepoints.refused
        loaded = len(kernel.tracepoints.programs)
        kernel.close()
        assert (loaded, refused) == (len(chosen.events), [])


def test_nothing_of_a_recording_of_many_events_is_left_behind(start, programs, tmp_path):
    recorder = start(
        "--tables", "processes", "--event", "sched:*,signal:*,timer:*", "--", programs("events"), "line", tmp_path, stdin=subprocess.PIPE
    )
    recorder.wait_until_recording()
    assert open_events(recorder.path) > 30
    recorder.process.stdin.close()
    recorder.wait().trace.check()
    wait_for(lambda: open_events(recorder.path) == 0, "the events are closed")


def open_events(trace):
    """Perf events that a recorder of that trace, or who closes them in its place, still holds."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(trace) in (process / "cmdline").read_bytes():
                count += sum(os.readlink(link) == "anon_inode:[perf_event]" for link in (process / "fd").iterdir())
        except OSError:
            continue
    return count


def test_the_kernel_s_events_are_listed_with_their_fields():
    listed = run("events", "sched:sched_process_*").stdout.decode().splitlines()
    assert "sched:sched_process_exit" in listed
    assert all(name.startswith("sched:sched_process_") for name in listed)
    one = run("events", "sched:sched_process_exec").stdout.decode()
    assert "    __data_loc char[] filename" in one.splitlines()
    assert run("events", "nothing:*").status == 2


def test_events_are_recorded_beside_the_default_tables_and_printed_among_them(record, programs, tmp_path):
    words = ("--event", "sched:sched_process_wait", "--event", "ext4:ext4_sync_file_enter", "--", programs("events"), "everything", tmp_path)
    done = record(*words)
    trace = ringtape.open(done.path)
    assert trace.event("sched:sched_process_wait").collect()["comm"].to_list() == ["events"] * 5
    assert {"syscalls", "paths", "processes", "events"} <= set(trace.tables)
    lines = run("print", done.path).stdout.decode()
    assert '+++ sched:sched_process_wait comm="events" pid=' in lines
