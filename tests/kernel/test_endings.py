"""However a recording is ended, it ends cleanly: a footer, the right status, no traceback, a command that goes on."""

import contextlib
import os
import pty
import select
import signal
import time
from pathlib import Path

import pytest

from tests.kernel.load import STATUS, Load
from tests.kernel.recording import ENVIRONMENT, PATIENCE, RINGTAPE, Trace, check_quiet, wait_for

CTRL_C = b"\x03"


@pytest.fixture
def load(programs, tmp_path):
    with Load(programs("load"), tmp_path / "control", pause=3000) as one:
        yield one
        one.stop()
        if one.pid:
            wait_for(lambda: one.finished or not os.path.exists(f"/proc/{one.pid}"), "the load ends")


class Terminal:
    """A recorder on a terminal of its own, as its user has it."""

    def __init__(self, path, *arguments):
        self.path = path
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            words = [*RINGTAPE, "record", "-o", str(path), "--ring-size", "4M", *arguments]
            os.execve(words[0], words, ENVIRONMENT)
        self.said = b""

    def listen(self):
        """Take what it has written; a terminal that nobody reads would hold it up."""
        while self.master >= 0 and select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            self.said += data

    def wait_until_recording(self):
        def begun():
            self.listen()
            return (self.path / "manifest.jsonl").exists() and (self.path / "manifest.jsonl").read_bytes().count(b"\n")

        wait_for(begun, "the recording begins")
        return self

    def type(self, data):
        os.write(self.master, data)

    def hang_up(self):
        os.close(self.master)
        self.master = -1

    def wait(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            self.listen()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            assert time.monotonic() < deadline, self.said
            time.sleep(0.005)
        self.listen()
        if self.master >= 0:
            os.close(self.master)
        assert b"Traceback" not in self.said
        return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_recording_of_a_command_that_goes_on(start, load, number):
    recorder = start("--", *load.words).wait_until_recording()
    load.wait_until_running()
    done = recorder.stop(number)
    check_quiet(done)
    assert done.status in (128 + number, -number)
    trace = done.trace
    assert trace.footer.end == "interrupted"
    assert number.name in trace.footer.reason
    assert trace.footer.exit_status is None
    trace.check_books()
    trace.check_no_pins()
    load.check_goes_on()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_recording_of_everything_as_asked_for(start, number):
    done = start("--all", "--syscall", "execve").wait_until_recording().stop(number)
    check_quiet(done)
    assert done.status == 0
    assert number.name in done.trace.check().footer.reason


def test_a_signal_during_the_start_ends_it_with_nothing_left_or_with_a_complete_trace(start, tmp_path):
    for number, delay in ((signal.SIGINT, 0.1), (signal.SIGTERM, 0.2), (signal.SIGHUP, 0.3), (signal.SIGINT, 0.3), (signal.SIGTERM, 0.4)):
        recorder = start("--", "sleep", "1000")
        time.sleep(delay)
        done = recorder.stop(number)
        assert "Traceback" not in done.stderr, (delay, done.stderr)
        assert done.status != 0
        if done.path.exists():
            trace = done.trace
            assert trace.footer.end in ("complete", "interrupted")
            trace.check_no_pins()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(recorder.pid, signal.SIGKILL)


def test_ctrl_c_reaches_the_command_and_the_trace_is_complete(load, tmp_path):
    terminal = Terminal(tmp_path / "x.trace", "--", *load.words).wait_until_recording()
    load.wait_until_running()
    terminal.type(CTRL_C)
    status = terminal.wait()
    assert status in (-signal.SIGINT, 130)
    trace = Trace(tmp_path / "x.trace").check()
    assert trace.footer.exit_status == 130
    assert not os.path.exists(f"/proc/{load.pid}")
    exits = [row for row in trace.rows("processes") if row["kind"] == 3 and row["group_dead"] and row["pid"] == load.pid]
    assert [row["exit_signal"] for row in exits] == [signal.SIGINT]
    assert b"events in" in terminal.said  # the summary


def test_ctrl_c_with_a_command_that_takes_no_notice_ends_the_recording_alone(tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    terminal = Terminal(tmp_path / "x.trace", "--", "sh", "-c", f"trap '' INT; read line <{gate}").wait_until_recording()
    (child,) = wait_for(lambda: Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read_text().split(), "the command runs")
    wait_for(lambda: Path(f"/proc/{child}/comm").read_text() == "sh\n" and _ignores(child, signal.SIGINT), "the shell has set its trap")
    terminal.type(CTRL_C)
    assert terminal.wait() in (-signal.SIGINT, 130)
    trace = Trace(tmp_path / "x.trace")
    assert trace.footer.end == "interrupted"
    trace.check_books()
    assert os.path.exists(f"/proc/{child}")
    os.kill(int(child), signal.SIGKILL)


def _ignores(pid, number):
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(mask >> number - 1 & 1)


def test_ctrl_c_ends_the_recording_of_everything(tmp_path):
    terminal = Terminal(tmp_path / "x.trace", "--all", "--syscall", "execve").wait_until_recording()
    terminal.type(CTRL_C)
    assert terminal.wait() == 0
    Trace(tmp_path / "x.trace").check()
    assert b"events in" in terminal.said


def test_a_closed_terminal_ends_the_recording_cleanly(load, tmp_path):
    terminal = Terminal(tmp_path / "x.trace", "--", *load.words).wait_until_recording()
    load.wait_until_running()
    terminal.hang_up()
    status = terminal.wait()
    assert status in (-signal.SIGHUP, 128 + signal.SIGHUP)
    trace = Trace(tmp_path / "x.trace")
    assert trace.footer.end in ("complete", "interrupted")
    trace.check_books()
    trace.check_no_pins()


@pytest.mark.parametrize("streams", [("stderr",), ("stdout",), ("stdout", "stderr")], ids=" and ".join)
def test_output_that_nobody_reads_harms_nothing(start, load, streams):
    read, write = os.pipe()
    recorder = start("--no-merge", "--", *load.words, **dict.fromkeys(streams, write))
    os.close(read)
    os.close(write)
    recorder.wait_until_recording()
    load.wait_until_running()
    load.stop()
    assert recorder.wait().status == STATUS
    Trace(recorder.path).check()


def test_closed_standard_streams_harm_nothing(start):
    recorder = start("--", "sh", "-c", "exit 4", preexec_fn=lambda: os.closerange(0, 3))
    assert recorder.process.wait(timeout=PATIENCE) == 4
    trace = Trace(recorder.path).check()
    assert trace.footer.exit_status == 4


def test_under_nohup_a_hang_up_changes_nothing(start, load):
    recorder = start("--", *load.words, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)).wait_until_recording()
    load.wait_until_running()
    recorder.process.send_signal(signal.SIGHUP)
    load.check_goes_on()
    load.stop()
    done = recorder.wait()
    assert done.status == STATUS
    assert done.trace.check().footer.reason == ""
