"""Figures of the README against the results that lie in the repository."""

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ringtape.analysis.studies.reading import Reading
from ringtape.analysis.studies.report import ratio_text
from ringtape.analysis.studies.results import Results

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "datasets" / "studies"
TOOLS = ("none again", "ringtape", "bpftrace", "perf record", "perf trace", "strace -c", "strace")
VERDICTS = {"holds": "reached", "undecided": "undecided", "does not hold": "missed"}


def reading(name):
    return Reading(Results(STUDIES / f"{name}.study"))


def overhead_lines():
    """The rows of the README's table of slowdowns, as the results have them."""
    overhead = reading("overhead")
    rows, asked, lines = overhead.slowdowns.filter(pl.col("primary")), {}, []
    for claim, verdict in overhead.claims.select("claim", "verdict").iter_rows():
        if match := re.fullmatch(r"slowdown\(ringtape, (.+)\) <= ([0-9.]+)", claim):
            asked[match[1]] = f"{match[2]}, {VERDICTS[verdict]}"
    for workload in rows["workload"].unique(maintain_order=True):
        found = {row["treatment"]: row for row in rows.filter(workload=workload).iter_rows(named=True)}
        cells = []
        for name in TOOLS:
            row = found["none" if name == "none again" else name]
            text = ratio_text(row["slowdown"], *((row["low"], row["high"]) if name in TOOLS[:2] else (None, None)))
            cells.append(f"**{text}**" if name == "ringtape" else text)
        lines.append(f"| {workload} | {asked.get(workload, '')} | {' | '.join(cells)} |")
    return lines


def accuracy_lines():
    """The rows of the README's table of what tools report, as the results have them."""
    every, lines = reading("accuracy").accuracy, []
    for tool in every["treatment"].unique(maintain_order=True):
        of_tool = every.filter(pl.col("treatment") == tool, pl.col("verdict") != "not run")
        if not len(of_tool):
            continue
        cells = []
        for quantity in ("count", "errors", "bytes", "time"):
            rows = of_tool.filter(pl.col("quantity") == quantity)
            told = rows.filter(pl.col("verdict") != "not reported")
            if not len(told):
                cells.append("not reported")
            elif (told["verdict"] == "equal").all():
                cells.append("equal" if len(told) == len(rows) else f"equal; {len(rows) - len(told)} of {len(rows)} not reported")
            else:
                off = told.filter(pl.col("verdict") == "differs")
                cells.append(f"{len(off)} of {len(rows)} differ, by {off['least'].min():+.3%} to {off['most'].max():+.3%}")
        why = of_tool.filter(pl.col("quantity") != "time")["why"].unique(maintain_order=True)
        lines.append(f"| {tool} | {' | '.join(cells)} | {'; '.join(one for one in why if one)} |")
    return lines


def families_lines():
    """The rows of the README's table of slowdowns by family, as the results have them."""
    rows, lines = reading("families").slowdowns.filter(pl.col("primary")), []
    for treatment in rows["treatment"].unique(maintain_order=True):
        of_treatment = rows.filter(treatment=treatment)
        cells = [ratio_text(row["slowdown"], row["low"], row["high"]) for row in of_treatment.iter_rows(named=True)]
        lines.append(f"| {'none again' if treatment == 'none' else treatment} | {' | '.join(cells)} |")
    return lines


@pytest.mark.parametrize("lines", [overhead_lines, accuracy_lines, families_lines])
def test_tables_of_the_readme_are_those_of_the_studies(lines):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in lines():
        assert line in text


@pytest.mark.parametrize("name", ["overhead", "families", "accuracy"])
def test_published_results_are_of_the_study_file_beside_them(name):
    results = Results(STUDIES / f"{name}.study")
    assert (STUDIES / f"{name}.study" / "study.toml").read_text() == (STUDIES / f"{name}.toml").read_text()
    ran = results.measured()
    assert len(ran) > 0
    assert set(ran["workload"]) == {workload.name for workload in results.study.workloads}


def test_what_the_readme_says_of_claims_is_what_was_found():
    claims = {(row["claim"], row["workload"]): row for row in reading("overhead").claims.iter_rows(named=True)}
    assert {row["verdict"] for (claim, _), row in claims.items() if claim == "lost(ringtape) == 0"} == {"holds"}
    for tool in ("perf trace", "strace"):
        assert {row["verdict"] for (claim, _), row in claims.items() if claim == f"slowdown(ringtape) < slowdown({tool})"} == {"holds"}
    undecided = {(claim, workload) for (claim, workload), row in claims.items() if row["verdict"] == "undecided" and "<= " not in claim}
    assert undecided == {
        ("slowdown(ringtape) < slowdown(perf record)", "tar"),
        ("slowdown(ringtape) < slowdown(perf record)", "python start"),
        ("slowdown(ringtape) < slowdown(bpftrace)", "postgresql"),
        ("slowdown(ringtape) < slowdown(bpftrace)", "compile"),
        ("slowdown(ringtape) < slowdown(bpftrace)", "tar"),
        ("slowdown(ringtape) < slowdown(bpftrace)", "python start"),
    }
    assert set(reading("families").claims["verdict"]) == {"holds"}
    assert set(reading("accuracy").claims["verdict"]) == {"holds"}


def commands_shown():
    """Each command of the README's recipes, with the lines that are shown of its output."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    recipes = text[text.index("## Five questions") : text.index("## Beside other tools")]
    for block in re.findall(r"```\n(.*?)```", recipes, re.DOTALL):
        for one in re.split(r"^\$ ringtape ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = one.partition("\n")
            yield command, shown.rstrip().splitlines()


@pytest.mark.parametrize(("command", "shown"), list(commands_shown()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_recipe_prints_what_the_readme_shows(command, shown):
    # readline, which pytest loads, puts COLUMNS where os.environ does not see it, and children of a plain run do.
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    words = [Path(sys.executable).with_name("ringtape"), *command.split()]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    for line, real in zip(shown, printed, strict=False):
        if line == "...":
            break
        if not line.startswith("─"):
            assert real == line if not line.endswith(" ...") else real.startswith(line.removesuffix(" ...")), (
                f"{real!r} where the README has {line!r}"
            )
    assert len(shown) == len(printed) or shown[-1] == "..."
    assert len(shown) > 3
