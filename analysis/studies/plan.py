"""In which order a study is run: blocks of one workload each, every treatment once in a block, all of it shuffled."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ringtape.analysis.studies.declaration import BASELINE, Study


@dataclass(frozen=True)
class Step:
    """One run of a block: a treatment by name; ``replica`` is 1 for the second run of the baseline."""

    treatment: str
    replica: int = 0


@dataclass(frozen=True)
class Block:
    """Runs of one workload that belong together. ``repetition`` is below 0 in a warm-up, which has the baseline only."""

    number: int
    workload: str
    repetition: int
    steps: tuple[Step, ...]


def plan(study: Study) -> Sequence[Block]:
    """Return all blocks of a study in the order in which they are run.

    Each repetition has one block of every workload, in random order, so that a machine that drifts meets all workloads alike; in a
    block the treatments are in random order, so that it meets all treatments alike; the baseline is in every block twice. The order
    follows from the seed of the study alone, so that a study that was interrupted goes on as it would have.
    """
    generator = random.Random(study.seed)
    blocks: list[Block] = []
    for repetition in range(-study.warmups, study.repetitions):
        for workload in generator.sample(study.workloads, len(study.workloads)):
            steps = [Step(BASELINE)]
            if repetition >= 0:
                steps = [*(Step(one.name) for one in study.treatments_of(workload)), Step(BASELINE, 1)]
                generator.shuffle(steps)
            blocks.append(Block(len(blocks), workload.name, repetition, tuple(steps)))
    return blocks
