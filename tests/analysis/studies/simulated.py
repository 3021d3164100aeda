"""Makes the results of studies whose truth is known, without running anything."""

import json

import numpy as np

from ringtape.analysis.studies.plan import plan
from ringtape.analysis.studies.results import COMPLETED, ENVIRONMENT, FILE, Results, write
from ringtape.analysis.studies.study_file import parse
from ringtape.schemas.studies import CALLS, RUNS

SECOND = 1_000_000_000


def text(workloads=("w",), treatments=("ringtape", "strace"), repetitions=10, claims=(), metric="", more="", name="simulated", seed=1):
    """The text of a study."""
    lines = [f'name = "{name}"', f"repetitions = {repetitions}", f"claims = {json.dumps(list(claims))}", f"seed = {seed}"]
    for each in workloads:
        lines += [f'[workloads."{each}"]', 'command = "true"', *([f'[workloads."{each}".metric]', metric] if metric else []), more]
    for each in treatments:
        known = each == "ringtape"
        lines += [f'[treatments."{each}"]', *([] if known else ['tool = "command"', 'options = ["nice", "{command}"]'])]
    return "\n".join(lines) + "\n"


def skewed(generator, size=None, spread=0.02):
    """Noise as runs have it: never much faster than usual, sometimes much slower."""
    return np.log1p(generator.gamma(1.5, spread, size))


class Simulation:
    """Runs a study on a machine of numbers.

    ``slowdown`` is by treatment, or by workload and treatment; ``drift`` is the share by which everything gets slower with each
    block, ``order`` with each place in a block; ``noise(generator)`` gives the logarithm of what comes to a run; ``change(row)`` may
    change a row, or return False to leave it out.
    """

    def __init__(self, study, slowdown=None, seed=1, drift=0.0, order=0.0, noise=skewed, change=None, base=SECOND, metric=None, calls=()):
        self.study, self.slowdown, self.drift, self.order, self.noise = study, slowdown or {}, drift, order, noise
        self.generator, self.change, self.base, self.metric, self.calls = np.random.default_rng(seed), change, base, metric, calls

    def steps(self):
        return [(block, position, step) for block in plan(self.study) for position, step in enumerate(block.steps)]

    def rows(self):
        now = 1_700_000_000 * SECOND
        for number, (block, position, step) in enumerate(self.steps()):
            slowdown = self.slowdown.get((block.workload, step.treatment), self.slowdown.get(step.treatment, 1.0))
            wall = self.base * slowdown * np.exp(self.drift * block.number + self.order * position + float(self.noise(self.generator)))
            tool = step.treatment != "none"
            row = {
                "ts": now, "wall": int(wall), "total": int(wall * 1.1), "user": int(wall * 0.6), "system": int(wall * 0.3),
                "tool": 50_000_000 if tool else 0, "memory": 1 << 20, "metric": self.metric(wall) if self.metric else None,
                "events": 1_000_000 if tool else None, "lost": 0 if tool else None, "bytes": 8_000_000 if tool else None, "outside": 0.01,
                "steal": 0.0, "load": 0.5, "run": number, "block": block.number, "repetition": block.repetition, "status": 0, "attempt": 0,
                "position": position, "replica": step.replica, "disturbed": 0, "end": COMPLETED, "workload": block.workload,
                "treatment": step.treatment, "message": "",
            }  # fmt: skip
            now += int(wall * 1.1)
            if self.change is None or self.change(row) is not False:
                yield row

    def write(self, folder, environment=None):
        """Write the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(self.study.text)
        (folder / ENVIRONMENT).write_text(json.dumps(environment if environment is not None else [session()]))
        rows = list(self.rows())
        write(folder / "runs.parquet", RUNS, rows)
        write(folder / "calls.parquet", CALLS, [call for row in rows for call in (self.calls(row) if self.calls else ())])
        return Results(folder)


def session(**changes):
    """What the runner notes of a machine."""
    state = {
        "time": 1.7e9, "boot": "b", "machine": "x86_64", "kernel": "6.18.0", "kernel_version": "#1", "command_line": "quiet", "cpu": "Test CPU",
        "cpus": [0, 1], "memory": 8 << 30, "hypervisor": None, "clock_source": "tsc", "governor": ["performance"], "turbo_off": "1", "smt": "0",
        "mitigations": {"meltdown": "Not affected"}, "randomize_va_space": "2", "load": [0.1, 0.1, 0.1], "steal": 0.0,
        "bpf": {"programs": 3, "links": 0}, "ringtape": "1.0", "python": "3.12", "versions": {"strace": "strace 6.1"}, "programs": {},
    }  # fmt: skip
    before = {**state, **changes}
    return {"before": before, "after": {**before, "time": before["time"] + 600}, "missing": []}


def simulate(folder, *, slowdown=None, environment=None, **more):
    """Make a results folder; what `text` knows goes to it, the rest to `Simulation`."""
    own = {key: more.pop(key) for key in ("workloads", "treatments", "repetitions", "claims", "more", "name") if key in more}
    if "metric_text" in more:
        own["metric"] = more.pop("metric_text")
    own["seed"] = more.get("seed", 1)
    study = parse(text(**own), folder / FILE)
    return Simulation(study, slowdown, **more).write(folder, environment)
