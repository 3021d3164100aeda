"""Runs the recorder as its user does, by its command line, and reads what it left with the strict reader."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.table import table

ROOT = Path(__file__).parent.parent.parent
CODE = "import sys; from ringtape.cli import main; sys.exit(main())"
SCRIPT = Path(sys.executable).with_name("ringtape")
RINGTAPE: tuple[str, ...] = (str(SCRIPT),) if SCRIPT.exists() else (sys.executable, "-c", CODE)
ENVIRONMENT = {**{k: v for k, v in os.environ.items() if not k.startswith("SUDO_")}, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
PATIENCE = 60.0
"""Seconds after which a condition that has not come true is a failure."""
SMALL_RINGS = ("--ring-size", "16M")


class Call(NamedTuple):
    """A row of the table of system calls."""

    ts: int
    dur: int
    ret: int
    args: tuple[int, ...]
    seq: int
    pid: int
    tid: int
    nr: int
    cpu: int
    abi: int
    kind: int


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:.0f} s in vain: {what}")
        time.sleep(0.002)
    return value


class Trace:
    """All rows of a trace, every part checked."""

    def __init__(self, path: Path) -> None:
        self.folder = TraceFolder.open(path)
        self._tables: dict[str, pa.Table] = {}

    @property
    def state(self) -> str:
        return self.folder.state

    @property
    def footer(self) -> Any:
        assert self.folder.footer is not None, "the trace has no footer"
        return self.folder.footer

    def table(self, name: str) -> pa.Table:
        if name not in self._tables:
            parts = [self.folder.read(part) for part in self.folder.parts(name)]
            self._tables[name] = pa.concat_tables(parts) if parts else arrow_schema(table(name)).empty_table()
        return self._tables[name]

    def rows(self, name: str) -> list[dict[str, Any]]:
        return self.table(name).sort_by("ts").to_pylist()

    @cached_property
    def calls(self) -> list[Call]:
        """System calls by time of entry; calls of one thread stand in their order."""
        found = [
            Call(args=tuple(row[f"arg{i}"] for i in range(6)), **{name: row[name] for name in Call._fields if name != "args"})
            for row in self.table("syscalls").to_pylist()
        ]
        return sorted(found, key=lambda call: (call.ts, call.dur))

    @cached_property
    def threads(self) -> dict[int, list[Call]]:
        by_tid: dict[int, list[Call]] = defaultdict(list)
        for call in self.calls:
            by_tid[call.tid].append(call)
        return dict(by_tid)

    @property
    def journal(self) -> Path:
        return Path(self.folder.header.journal)

    def sequences(self, name: str) -> dict[int, np.ndarray[Any, Any]]:
        """Return the sorted sequence numbers of a table's rows by CPU; rows that no ring carried have none."""
        rows = self.table(name).select(["cpu", "seq"])
        rows = rows.filter(pc.greater_equal(rows["seq"], 0))
        cpu, seq = rows["cpu"].to_numpy(), rows["seq"].to_numpy()
        return {int(one): np.sort(seq[cpu == one]) for one in np.unique(cpu)}

    def check_books(self) -> None:
        """Recorded + lost = attempted, on every CPU; the missing sequence numbers are as many as the ledger says; no row twice."""
        ledger: Counter[tuple[str, int]] = Counter()
        for row in self.rows("losses"):
            if row["cause"] == 0:
                ledger[row["table"], row["cpu"]] += row["count"]
        for name in self.footer.attempted:
            seqs = self.sequences(name)
            attempted = {int(cpu): count for cpu, count in self.footer.attempted[name].items()}
            assert set(seqs) <= set(attempted)
            for cpu, count in attempted.items():
                seq = seqs.get(cpu, np.empty(0, np.int64))
                assert len(np.unique(seq)) == len(seq), f"{name}, CPU {cpu}: rows twice"
                assert len(seq) == 0 or seq[-1] < count
                assert len(seq) + ledger[name, cpu] == count, f"{name}, CPU {cpu}: {len(seq)} recorded + {ledger[name, cpu]} lost"
            assert sum(ledger[name, cpu] for cpu in attempted) == self.footer.lost[name]
        for name in self.folder.tables:
            assert self.footer.rows[name] == self.table(name).num_rows

    def check_no_pins(self) -> None:
        """Nothing of this recording is left in the kernel."""
        assert not self.journal.is_dir() or not list(self.journal.iterdir()), f"pins left in {self.journal}"

    def check(self) -> Trace:
        """A complete recording: footer there, books balanced, nothing lost, nothing left behind."""
        assert self.state == "complete", f"{self.state}: {self.folder.footer}"
        self.check_books()
        self.check_no_pins()
        return self


class Done(NamedTuple):
    """A recorder that has ended."""

    status: int
    stdout: bytes
    stderr: str
    path: Path

    @property
    def trace(self) -> Trace:
        return Trace(self.path)


class Recorder:
    """A recorder that runs."""

    def __init__(
        self, path: Path, arguments: Sequence[str | bytes | Path], env: Mapping[str, str] | None = None, prefix: Sequence[str] = (), **options: Any
    ) -> None:
        self.path = path
        full = [*prefix, *RINGTAPE, "record", "-o", path, *(() if "--ring-size" in arguments else SMALL_RINGS), *arguments]
        # Files, not pipes: a command that outlives the recorder would keep a pipe open.
        self._said = {name: tempfile.TemporaryFile() for name in ("stdout", "stderr")}  # noqa: SIM115
        options = {"stdin": subprocess.DEVNULL, **self._said, "start_new_session": True, **options}
        self.process = subprocess.Popen(full, env={**ENVIRONMENT, **(env or {})}, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with self.process:
            pass
        for file in self._said.values():
            file.close()

    def said(self, stream: str) -> bytes:
        """Return what has been written to a standard stream so far."""
        return os.pread(self._said[stream].fileno(), 1 << 24, 0)

    @property
    def pid(self) -> int:
        return self.process.pid

    def manifest(self) -> list[dict[str, Any]]:
        """Return the whole lines of the manifest so far."""
        try:
            data = (self.path / "manifest.jsonl").read_bytes()
        except OSError:
            return []
        return [json.loads(line) for line in data.split(b"\n")[:-1]]

    def wait_until_recording(self) -> Recorder:
        """Wait for the header: by then every probe is attached."""

        def begun() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the recorder ended with {self.process.returncode}: {self.said('stderr')!r}")
            return bool(self.manifest())

        wait_for(begun, "the recording begins")
        return self

    def wait(self) -> Done:
        status = self.process.wait(timeout=2 * PATIENCE)
        return Done(status, self.said("stdout"), self.said("stderr").decode("utf-8", "backslashreplace"), self.path)

    def stop(self, number: int = signal.SIGINT) -> Done:
        self.process.send_signal(number)
        return self.wait()


def ringtape(*arguments: str | Path, env: Mapping[str, str] | None = None, prefix: Sequence[str] = (), **options: Any) -> Done:
    """Run a verb to its end."""
    full = [*prefix, *RINGTAPE, *arguments]
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    done = subprocess.run(full, env={**ENVIRONMENT, **(env or {})}, timeout=2 * PATIENCE, check=False, **options)
    return Done(done.returncode, done.stdout or b"", (done.stderr or b"").decode("utf-8", "backslashreplace"), Path(str(arguments[-1])))


def check_quiet(done: Done) -> None:
    """Whatever happened, nobody is shown a traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception" not in done.stderr, done.stderr


def check_one_error(done: Done) -> tuple[str, str]:
    """Exactly one error line and one hint line; return them."""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("ringtape: error: "), done.stderr
    assert lines[1].startswith("hint: "), done.stderr
    return lines[0].removeprefix("ringtape: error: "), lines[1].removeprefix("hint: ")


def in_call(pid: int, tid: int, nr: int) -> bool:
    """Return whether a thread sleeps in a system call, as the kernel tells."""
    try:
        return Path(f"/proc/{pid}/task/{tid}/syscall").read_text().split()[0] == str(nr)
    except (OSError, IndexError):
        return False
