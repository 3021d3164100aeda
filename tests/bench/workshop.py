"""The place of a bench run: its temporary folder, the compiled loops, and the commands that are started there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.bystanders import PATIENCE, Quiet

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = Path(__file__).with_name("programs")
RINGTAPE = (str(Path(sys.executable).with_name("ringtape")),)
# Everything is root's here: what sudo tells of the invoking user would make the recorder write as that user.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}


@dataclass(frozen=True)
class Loop:
    """What one loop of `programs/null_calls.c` measured of itself, in ns."""

    cpu: int
    calls: int
    wall: int
    used: int
    waited: int
    preempted: int

    @property
    def per_call(self) -> float:
        """Wall ns per call."""
        return self.wall / self.calls

    @property
    def cpu_per_call(self) -> float:
        """CPU ns per call."""
        return self.used / self.calls


class Workshop:
    """Temporary folder, programs and CPUs of a bench run.

    Parameters
    ----------
    folder : Path
        Empty; whoever made it deletes it.
    quick : bool
        Whether everything is only tried, not measured.
    """

    def __init__(self, folder: Path, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.quiet = Quiet(0 if quick else PATIENCE)
        cpus = sorted(os.sched_getaffinity(0))
        self.loop_cpu = cpus[-1]
        self.recorder_cpu = cpus[0]
        self.cpus = cpus
        self._made = 0

    def program(self, name: str) -> Path:
        """Return a program of `programs/`, compiled when it is first asked for."""
        binary = self.folder / name
        if not binary.exists():
            compiler = shutil.which("cc") or shutil.which("gcc")
            if compiler is None:
                raise SystemExit("bench: no C compiler found (packages gcc and libc6-dev)")
            subprocess.run([compiler, "-O2", "-Wall", "-Werror", "-o", binary, PROGRAMS / f"{name}.c"], check=True)
        return binary

    def new(self, suffix: str) -> Path:
        """Return the path of a file or folder that does not exist yet."""
        self._made += 1
        return self.folder / f"{self._made:04}{suffix}"

    def beside(self, command: Sequence[str | Path]) -> list[str | Path]:
        """Return a command that runs on the recorder's CPU; the loop leaves it by itself."""
        return ["taskset", "-c", str(self.recorder_cpu), *command]

    def run(self, command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess[bytes]:
        """Run a command silently.

        Raises
        ------
        RuntimeError
            With what it said, if it failed.
        """
        done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, check=False, **options)  # type: ignore[call-overload]
        if done.returncode:
            said = (done.stderr + done.stdout).decode(errors="replace").strip()[-600:]
            raise RuntimeError(f"{' '.join(map(str, command))[:200]} ended with status {done.returncode}: {said}")
        return done  # type: ignore[no-any-return]

    def loop_command(self, calls: int, cpus: Sequence[int] = ()) -> tuple[list[str | Path], Path]:
        """Return the command of a loop on each of these CPUs, and the file that it writes."""
        result = self.new(".loop")
        return [self.program("null_calls"), result, str(calls), *map(str, cpus or [self.loop_cpu])], result

    def loop(self, prefix: Sequence[str | Path], calls: int, cpus: Sequence[int] = ()) -> list[Loop]:
        """Run the loop under a tool and return what each loop measured."""
        command, result = self.loop_command(calls, cpus)
        self.run([*prefix, *command], stdin=subprocess.DEVNULL)
        return self.read(result)

    @staticmethod
    def read(result: Path) -> list[Loop]:
        """Return what loops wrote, and delete it."""
        loops = [Loop(*map(int, line.split())) for line in result.read_text().splitlines()]
        result.unlink()
        return sorted(loops, key=lambda loop: loop.cpu)

    def record(self, trace: Path, *options: str) -> list[str | Path]:
        """Return the command that records into a trace; a command, if any, follows it."""
        return [*RINGTAPE, "record", "--quiet", "--output", trace, *options]


def discard(path: Path) -> None:
    """Delete a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
