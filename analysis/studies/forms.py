"""The report of a study as text, as Markdown, and, with all its frames, as JSON."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ringtape.analysis.render import Cells, console, markdown, print_facts, print_table
from ringtape.analysis.studies.reading import KINDS, Reading
from ringtape.analysis.studies.report import StudyReport


def show(report: StudyReport) -> None:
    """Write the report to standard output, as a terminal has room."""
    target = console()
    print_facts(target, [("study", report.title), *([("question", report.question)] if report.question else []), *report.facts])
    for section in report.sections:
        target.print()
        target.print(section.title, style="bold")
        if section.content.rows:
            target.print()
            print_table(target, section.content)
        for note in section.notes:
            target.print(note, style="dim")


def as_text(report: StudyReport) -> str:
    """Return the report as text for a file."""
    from rich.console import Console

    text = io.StringIO()
    target = Console(file=text, width=10_000, highlight=False, markup=False, emoji=False)
    print_facts(target, [("study", report.title), *([("question", report.question)] if report.question else []), *report.facts])
    for section in report.sections:
        text.write(f"\n{section.title}\n\n")
        if section.content.rows:
            print_table(target, section.content)
        text.writelines(f"{note}\n" for note in section.notes)
    return text.getvalue()


def as_markdown(report: StudyReport, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """Return the report as Markdown, the slowdowns first; ``pictures`` are captions with paths."""
    said = [f"# {_plain(report.title)}", ""]
    if report.question:
        said += [_plain(report.question), ""]
    for section in report.sections:
        said += [f"## {_plain(section.title)}", ""]
        if section.content.rows:
            said += [markdown(in_markdown(section.content))]
        said += [line for note in section.notes for line in (_plain(note), "")]
        if section.name == "slowdowns":
            said += [line for caption, path in pictures for line in (f"![{_plain(caption)}]({path})", "")]
            said += [markdown(Cells(["", ""], [False, False], [[_plain(name), _plain(text)] for name, text in report.facts]))]
    return "\n".join(said)


def in_markdown(content: Cells) -> Cells:
    """Return cells in which Markdown sees no mark-up."""
    rows = [[_plain(value) for value in row] for row in content.rows]
    return Cells([_plain(head) for head in content.heads], content.numeric, rows)


_MARKS = re.compile(r"[\\`*<~]|(?<!\w)_|_(?!\w)|(?<=\])\(")


def _plain(text: str) -> str:
    r"""Return a text in which Markdown sees no mark-up; bars are the business of the table.

    >>> _plain("a*b [x](y) <i> exit_group")
    'a\\*b [x]\\(y) \\<i> exit_group'
    """
    return _MARKS.sub(lambda mark: "\\" + mark[0], text)


def as_json(reading: Reading) -> str:
    """Return everything that the study shows as one JSON document; what is no finite number is null."""
    study = reading.results.study
    document: dict[str, Any] = {
        "study": {
            "name": study.name,
            "question": study.question,
            "repetitions": study.repetitions,
            "warmups": study.warmups,
            "seed": study.seed,
            "workloads": [one.name for one in study.workloads],
            "treatments": [one.name for one in study.treatments],
            "text": study.text,
        },
        "method": reading.method,
        "level": reading.level,
        "environment": list(reading.results.environment),
    }
    for name in KINDS:
        document[name] = reading.frame(name).to_dicts()
    return json.dumps(_finite(document), indent=1) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
