"""What a study is: workloads, treatments, and how often and how they are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

BASELINE = "none"
"""Name of the treatment without a tool, which is in every block twice: the second is the control (A/A)."""

Traced = Literal["all", "command", "servers"]
Keep = Literal["nothing", "calls", "traces"]


@dataclass(frozen=True)
class Metric:
    """What a workload says of itself: a number in its output.

    Parameters
    ----------
    name : str
        What it is, with its unit, such as ``requests/s``.
    regex : str
        Regular expression whose group 1 is the number; where it matches several times, the numbers are put together by ``combine``.
    json : str
        Path to the number in a JSON output: keys and positions separated by dots.
    better : {"higher", "lower"}
        Which is better.
    combine : {"mean", "sum", "last"}
        What becomes of several matches; ``mean`` is the harmonic mean where higher is better, so that it stays work per time.
    """

    name: str
    regex: str = ""
    json: str = ""
    better: Literal["higher", "lower"] = "higher"
    combine: Literal["mean", "sum", "last"] = "mean"


@dataclass(frozen=True)
class Server:
    """A program that runs while the command does.

    ``ready`` is run again and again until it ends with 0; then the command starts. ``stop`` is run to end the server; without it,
    or where it does not end in time, the server gets SIGTERM, and at last SIGKILL.
    """

    command: tuple[str, ...]
    ready: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    patience: float = 30.0


@dataclass(frozen=True)
class Workload:
    """What is run and timed.

    Commands are argument lists, run without a shell. In them and in the environment, ``{folder}`` stands for an empty folder of the
    run, ``{study}`` for the folder of the study file, and ``{port}`` for a free port of the loopback interface.
    """

    name: str
    command: tuple[str, ...]
    servers: tuple[Server, ...] = ()
    setup: tuple[tuple[str, ...], ...] = ()
    teardown: tuple[tuple[str, ...], ...] = ()
    directory: str = "{folder}"
    environment: Mapping[str, str] = field(default_factory=dict)
    metric: Metric | None = None
    traced: Traced = "all"
    truth: bool = False
    user: str = ""
    needs: tuple[str, ...] = ()
    packages: str = ""
    treatments: tuple[str, ...] = ()
    time_limit: float | None = None


@dataclass(frozen=True)
class Treatment:
    """A tool with its options, by the name under which results are shown."""

    name: str
    tool: str
    options: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Noise:
    """When a block counts as disturbed: shares of the CPU time of the machine; and how often it is then run again."""

    outside: float = 0.10
    steal: float = 0.05
    retries: int = 2


@dataclass(frozen=True)
class Study:
    """An experiment, as its file declares it.

    ``path`` is that file; ``text`` is what it says.
    """

    name: str
    path: Path
    text: str
    workloads: Sequence[Workload]
    treatments: Sequence[Treatment]
    question: str = ""
    repetitions: int = 10
    warmups: int = 1
    time_limit: float = 120.0
    cpus: tuple[int, ...] = ()
    seed: int = 1
    keep: Keep = "calls"
    noise: Noise = Noise()
    claims: tuple[str, ...] = ()

    def treatments_of(self, workload: Workload) -> list[Treatment]:
        """Return what a workload is run under, the baseline first."""
        chosen = [one for one in self.treatments if not workload.treatments or one.name in workload.treatments]
        return [one for one in chosen if not one.only or workload.name in one.only]
