"""Every analysis and every form of export on traces of many events and of many threads: time and memory of each."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import ringtape
from ringtape.analysis import exporting, registry
from tests.bench.enlarged import enlarged
from tests.bench.figures import Pair, Row, Section, at_most, megabytes, said
from tests.bench.response import timed
from tests.bench.workshop import RINGTAPE, ROOT, Workshop, discard

MANY_EVENTS = 100_000_000
MANY_THREADS = 16_000_000
"""Rows of all tables together: 352 times the recording of all families, each with 29 threads of its own, 10,208 in all."""
LIMIT = 900
"""s after which a command is ended."""
MEMORY = at_most(2e9, "<= 2 GB")
_ASKED = {
    "event_count": ["--event", "signal:signal_generate"],
    # A row for each thing that each thread did: as text, aligned, a million and a half of them take minutes.
    "timeline": ["--format", "csv"],
    "event_hist": ["--event", "signal:signal_generate", "--field", "sig"],
}
_STACKS = ("folded", "speedscope")


def measure(shop: Workshop) -> Section:
    """Return the section."""
    section = Section("analyses", "Every analysis and export on many events and many threads")
    section.remarks = [
        "Peak memory of whole processes by wait4(2), file pages that are mapped among it; beside it the wall time, once; page cache warm.",
        f"What takes longer than {LIMIT} s is ended. Exports go to standard output, which is thrown away.",
        "Many events: the calls of datasets/demo.trace again and again (tests/bench/enlarged.py).",
        "Many threads: all tables of datasets/families.trace again and again, each time with processes and threads of their own.",
    ]
    demo, families = ROOT / "datasets" / "demo.trace", ROOT / "datasets" / "families.trace"
    for original, rows, own in ((demo, MANY_EVENTS, False), (families, MANY_THREADS, True)):
        trace = enlarged(original, shop.new(".trace"), 200_000 if shop.quick else rows, own)
        _every(section, trace)
        discard(trace)
    return section


def commands(trace: Path) -> dict[str, list[str]]:
    """Return the words of every command that a trace has the tables for, by what they are called."""
    opened = ringtape.open(trace)
    held = {name for name in opened.tables if name == "losses" or opened.rows(name)}
    found = {
        name.replace("_", "-"): [name.replace("_", "-"), str(trace), *_ASKED.get(name, [])]
        for name, analysis in registry.every().items()
        if held.issuperset(analysis.tables)
    }
    found["latency --by thread"] = ["latency", str(trace), "--by", "thread"]
    found["slow"] = ["slow", str(trace), "--syscall", "read", "--top", "10"]
    for form in exporting.names():
        if form not in _STACKS or "samples" in held:
            found[f"export --format {form}"] = ["export", str(trace), "--format", form, "--output", "-"]
    return found


def _every(section: Section, trace: Path) -> None:
    opened = ringtape.open(trace)
    rows = sum(opened.rows(name) for name in opened.tables)
    threads = opened.scan("syscalls").select("tid").unique().collect().height
    what = f"{rows / 1e6:,.1f} million events, {threads:,} threads"
    for name, words in commands(trace).items():
        try:
            once = timed(["timeout", str(LIMIT), *RINGTAPE, *words])
        except RuntimeError as error:
            section.rows.append(said(f"{what}: {name}", f"ended after {LIMIT} s" if str(error).endswith(" 124") else str(error)[-200:]))
            continue
        section.rows.append(Row(f"{what}: {name}", Pair(once.peak, once.peak, 1), megabytes, MEMORY, f"in {once.wall:.1f} s"))
        section.raw[f"{what}: {name}"] = asdict(once)
