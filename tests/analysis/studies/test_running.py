"""One run of a workload: what it is run in, what it took, how it ends, and that nothing of it stays behind."""

import os
import pwd
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ringtape.analysis.studies import running
from ringtape.analysis.studies.declaration import Metric, Server, Study, Treatment, Workload
from ringtape.analysis.studies.noise import Disturbance, Times, disturbance, times
from ringtape.analysis.studies.results import COMPLETED, FAILED, TIME_LIMIT, TOOL_FAILED
from ringtape.analysis.studies.running import run
from ringtape.schemas.errors import UsageError

NONE = Treatment("none", "none")
PYTHON = (sys.executable, "-S", "-c")
SERVE = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(1000)"
ASK = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])))"


def study(tmp_path, **keywords):
    return Study("test", tmp_path / "s.toml", "", [], [], **keywords)


def once(tmp_path, *command, treatment=NONE, keywords=(), keep=None, **workload):
    return run(study(tmp_path, **dict(keywords)), Workload("work", command, **workload), treatment, keep)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


def test_a_run_has_the_times_and_the_memory_of_its_command(tmp_path):
    spin = "import time; a = b'x' * 50_000_000; e = time.process_time() + .2\nwhile time.process_time() < e: pass"
    one = once(tmp_path, *PYTHON, spin)
    assert (one.end, one.status, one.message) == (COMPLETED, 0, "")
    assert one.user + one.system >= 200_000_000
    assert one.wall <= one.total
    assert one.wall >= 200_000_000
    assert one.memory > 50_000_000
    assert (one.tool, one.outcome.events, one.metric) == (0, None, None)


def test_commands_have_their_folder_environment_port_and_cpus(tmp_path):
    show = "import os; print(os.getcwd(), os.environ['P'], os.environ['HOME'], os.sched_getaffinity(0), 'SUDO_X' in os.environ)"
    cpu = max(os.sched_getaffinity(0))
    said = tmp_path / "said"
    said.touch()
    said.chmod(0o666)
    line = ("sh", "-c", f"'{sys.executable}' -S -c \"$0\" > '{said}'; echo {{study}} >> '{said}'; ls -A | wc -l >> '{said}'", show)
    one = once(tmp_path, *line, environment={"P": "{port}"}, keywords={"cpus": (cpu,)})
    assert one.end == COMPLETED, one.message
    first, folder, count = said.read_text().splitlines()
    where, port, home, cpus, sudo = first.split(" ")
    assert where.endswith("/folder")
    assert 1024 <= int(port) < 65536
    assert (home, cpus, sudo) == (pwd.getpwuid(os.geteuid()).pw_dir, f"{{{cpu}}}", "False")
    assert (folder, count) == (str(tmp_path), "0")
    assert not Path(where).exists()


def test_servers_are_ready_before_the_command_and_gone_after_it(tmp_path):
    server = Server((*PYTHON, SERVE, "{port}"), (*PYTHON, ASK, "{port}"))
    pids = tmp_path / "pids"
    one = once(
        tmp_path,
        "sh",
        "-c",
        f"{' '.join(PYTHON)} \"$0\" {{port}} && pgrep -f 'create_server.* {{port}}' > {pids}",
        ASK,
        servers=(server,),
    )
    assert one.end == COMPLETED, one.message
    assert pids.read_text().split()
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_a_server_is_stopped_as_it_wants(tmp_path):
    done = tmp_path / "done"
    told = "import signal, pathlib, sys; signal.sigwait([signal.SIGUSR1]); pathlib.Path(sys.argv[1]).write_text('told')"
    block = "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])"
    block += "; open(sys.argv[2], 'w').write(str(os.getpid()));"
    pid = tmp_path / "pid"
    server = Server((*PYTHON, f"import sys; {block} {told}", str(done), str(pid)), ("test", "-s", str(pid)), ("sh", "-c", f"kill -USR1 $(cat {pid})"))
    one = once(tmp_path, "true", servers=(server,))
    assert one.end == COMPLETED, one.message
    assert done.read_text() == "told"


def test_what_goes_wrong_is_said(tmp_path):
    one = once(tmp_path, "sh", "-c", "echo no luck >&2; exit 3")
    assert (one.end, one.status, one.message) == (FAILED, 3, "sh ended with status 3: no luck")
    one = once(tmp_path, "sh", "-c", "kill -9 $$")
    assert (one.end, one.status) == (FAILED, -9)
    one = once(tmp_path, "no-such-program")
    assert (one.end, one.status) == (FAILED, 127)
    assert "no-such-program: No such file or directory" in one.message
    one = once(tmp_path, "sleep", "1000", time_limit=0.1)
    assert (one.end, one.message) == (TIME_LIMIT, "still running after 0.1 s")
    one = once(tmp_path, "true", servers=(Server(("sleep", "1000"), ("false",), patience=0.2),))
    assert (one.end, one.message) == (FAILED, "the server sleep was not ready after 0.2 s")
    one = once(tmp_path, "true", servers=(Server(("sh", "-c", "echo broken >&2; exit 1"), ("false",)),))
    assert one.end == FAILED
    assert one.message.startswith("the server sh ended before it was ready: broken")
    one = once(tmp_path, "true", setup=(("sh", "-c", "echo full >&2; exit 4"),))
    assert one.message == "the set-up command sh ended with status 4: full"
    one = once(tmp_path, "true", teardown=(("false",),))
    assert (one.end, one.message) == (FAILED, "the tear-down command false ended with status 1: ")
    with pytest.raises(UsageError, match="no such user"):
        once(tmp_path, "true", user="no-such-user")


def test_tear_down_comes_after_a_failure_and_set_up_before_everything(tmp_path):
    log = tmp_path / "log"
    log.touch()

    def say(what):
        return ("sh", "-c", f"echo {what} >> {log}")

    once(tmp_path, "sh", "-c", f"echo command >> {log}; exit 1", setup=(say("one"), say("two")), teardown=(say("down"),))
    assert log.read_text().split() == ["one", "two", "command", "down"]


def test_nothing_of_a_run_stays_behind(tmp_path):
    pids = tmp_path / "pids"
    escape = "import os\nfor i in range(3):\n if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
    escape += "   os.execvp('sleep', ['sleep', '1000'])\n  os._exit(0)\n"
    keep = subprocess.Popen(["sleep", "1000"])
    one = once(tmp_path, "sh", "-c", f'{" ".join(PYTHON)} "$0"; sleep 1000 & echo $! > {pids}; sleep .1', escape)
    assert one.end == COMPLETED, one.message
    assert gone(int(pids.read_text()))
    mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    assert str(keep.pid) in mine  # a child that is not of the run
    states = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in mine if pid != str(keep.pid)]
    assert b"sleep\x001000\x00" not in states
    keep.kill()
    keep.wait()


def test_a_metric_comes_from_the_output(tmp_path):
    one = once(tmp_path, "echo", "12.5 per second", metric=Metric("rate", regex="([0-9.]+) per"))
    assert one.metric == 12.5
    one = once(tmp_path, "echo", '{"a": [{"b": 3}]}', metric=Metric("rate", json="a.0.b"))
    assert one.metric == 3
    one = once(tmp_path, "echo", "nothing", metric=Metric("rate", regex="([0-9.]+) per"))
    assert (one.end, one.metric) == (FAILED, None)
    assert "the metric rate is not in the output of the command: 'nothing" in one.message


def test_the_truth_comes_from_the_output(tmp_path):
    one = once(tmp_path, "echo", '{"calls": {"getppid": {"count": 7, "errors": 0}}}', truth=True)
    assert one.truth["getppid"].count == 7
    one = once(tmp_path, "echo", '{"calls": {"getppid": {"count": -7}}}', truth=True)
    assert (one.end, one.message) == (FAILED, "the workload says of getppid: {'count': -7}")


def test_a_tool_of_ones_own_wraps_what_it_is_told_to(tmp_path):
    env = Treatment("mine", "command", ("sh", "-c", 'echo "$0" "$@" > {output}; exec "$0" "$@"', "{command}"))
    server = Server(("sh", "-c", "touch up; exec sleep 1000"), ready=("test", "-e", "up"))
    for traced, first in (("command", "echo hello"), ("servers", "sh -c touch up"), ("all", f"{sys.executable} -I -S")):
        kept = tmp_path / traced
        one = once(tmp_path, "echo", "hello", treatment=env, traced=traced, servers=(server,), keep=kept)
        assert one.end == COMPLETED, one.message
        assert kept.read_text().startswith(first)
        assert one.outcome.bytes == kept.stat().st_size


def test_a_tool_that_fails_is_told_from_a_workload_that_does(tmp_path):
    def ends(script, *command, **keywords):
        return once(tmp_path, *(command or ("true",)), treatment=Treatment("mine", "command", ("sh", "-c", script, "{command}")), **keywords)

    one = ends("echo no permission >&2; exit 1")
    assert (one.end, one.message) == (TOOL_FAILED, "mine ended with status 1, and the workload was not run to its end: no permission")
    one = ends('"$0" "$@"; echo disk full >&2; exit 5')
    assert (one.end, one.message) == (TOOL_FAILED, "mine ended with status 5: disk full")
    one = ends('"$0" "$@"; exit 5', "sh", "-c", "exit 6")
    assert (one.end, one.status) == (FAILED, 6)


def test_cpu_time_of_a_tool_is_told_from_that_of_the_workload(tmp_path):
    spin = "import time; e = time.process_time() + float(__import__('sys').argv[1])\nwhile time.process_time() < e: pass"
    script = f'\'{sys.executable}\' -S -c "{spin}" 0.6; exec "$0" "$@"'
    one = once(tmp_path, *PYTHON, spin, "0.3", treatment=Treatment("mine", "command", ("sh", "-c", script, "{command}")))
    assert one.end == COMPLETED, one.message
    assert 300e6 <= one.user + one.system < 550e6
    assert 600e6 <= one.tool < 900e6


def test_what_runs_ends_when_the_runner_is_killed(tmp_path):
    pid = tmp_path / "pid"
    pid.touch()
    code = f"""
from dataclasses import replace
from pathlib import Path
from ringtape.analysis.studies.declaration import *
from ringtape.analysis.studies.running import run
run(Study("s", Path("s"), "", [], []), Workload("w", ("sh", "-c", "echo $$ > {pid}; exec sleep 1000"),
    servers=(Server(("sleep", "1000")),)), Treatment("none", "none"), place=Path("{tmp_path}"))
"""
    runner = subprocess.Popen([sys.executable, "-c", code])
    command = int(wait_for(pid.read_text))
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    wait_for(lambda: gone(command))


def test_what_others_use_is_a_share_of_the_machine():
    me = os.getpid()
    before = Times(100, 1, {(1, 0): 5.0, (2, 7): 4.0, (me, 0): 0.0})
    # 2 has ended, and 1 has waited for it; another has its number.
    after = Times(120, 2, {(1, 0): 10.0, (2, 8): 0.5, (3, 9): 1.5, (me, 0): 9.0})
    assert disturbance(before, after) == Disturbance(0.15, 0.05, 3.0)
    assert disturbance(before, before) == Disturbance(0.0, 0.0, 0.0)
    assert disturbance(Times(0, 0), Times(2, 0, {(1, 0): 2.25})).outside == 1.0


def test_a_busy_neighbour_is_seen(tmp_path):
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as neighbour:
        loud = once(tmp_path, *PYTHON, "import time; e = time.process_time() + 1\nwhile time.process_time() < e: pass")
        neighbour.kill()
    assert loud.disturbance.seconds >= 0.2
    assert loud.disturbance.outside > 0


def test_what_a_tool_does_not_wait_for_is_not_of_others(tmp_path, monkeypatch):
    def ours():
        """Of all processes only our children: what else runs on this machine is no matter here."""
        at = times()
        return replace(at, processes={key: used for key, used in at.processes.items() if key[0] in running._children()})

    # perf trace ends when its command has ended, without waiting for it.
    monkeypatch.setattr(running, "times", ours)
    script = "import os, sys; p = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ); os.waitid(os.P_PID, p, os.WEXITED | os.WNOWAIT)"
    careless = Treatment("mine", "command", (*PYTHON, script, "{command}"))
    one = once(tmp_path, *PYTHON, "import time; e = time.process_time() + 1\nwhile time.process_time() < e: pass", treatment=careless)
    assert one.end == COMPLETED, one.message
    assert one.user + one.system >= 1e9
    assert one.disturbance.seconds < 0.5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root takes on another user")
def test_a_workload_runs_as_its_user(tmp_path):
    said = tmp_path / "said"
    said.touch()
    said.chmod(0o666)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 1 and parent != Path("/root"):
            parent.chmod(parent.stat().st_mode | 1)
    one = once(
        tmp_path,
        "sh",
        "-c",
        f"id -un > {said}; id -Gn >> {said}; echo $HOME $USER >> {said}; touch here; cat /proc/self/status",
        user="nobody",
        metric=Metric("capabilities", regex=r"CapEff:\s+0*([1-9a-f]*)$"),
    )
    assert said.read_text().split()[0] == "nobody", one.message
    assert said.read_text().splitlines()[1] == "nogroup"
    assert said.read_text().splitlines()[2].endswith(" nobody")
