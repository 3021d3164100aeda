"""Read a study file, and say what this machine lacks to run it.

Status: 0 if all of it can be run, 1 if a part of it would be left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="study file")


def run(args: argparse.Namespace) -> int:
    """Check and print."""
    from ringtape.analysis.studies.experiment import check_cpus, missing
    from ringtape.analysis.studies.plan import plan
    from ringtape.analysis.studies.study_file import read
    from ringtape.schemas.escape import escape

    study = read(args.file)
    check_cpus(study)
    absent = {(one.kind, one.name): one.why for one in missing(study)}
    for kind, names in (("workload", [one.name for one in study.workloads]), ("treatment", [one.name for one in study.treatments])):
        for name in names:
            why = absent.get((kind, name))
            print(f"{'skip' if why else 'ok':<5} {kind:<9} {escape(name):<24} {escape(why) if why else ''}".rstrip())
    blocks = plan(study)
    print(f"\n{escape(study.name)}: {len(blocks):,} blocks, {sum(len(block.steps) for block in blocks):,} runs, at most {study.time_limit:g} s each.")
    return 1 if absent else 0
