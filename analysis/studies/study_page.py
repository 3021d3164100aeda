"""The report of a study as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as html

from ringtape.analysis.page import document, facts_of, picture_of, table_of
from ringtape.analysis.pictures import Picture
from ringtape.analysis.studies.report import StudyReport


def page(report: StudyReport, drawn: Sequence[Picture]) -> str:
    """Return the report as HTML, the pictures below the slowdowns; every text that came from the study is escaped."""
    links = "".join(f'<a href="#{html(section.name)}">{html(section.title)}</a> ' for section in report.sections)
    body = [f"<h1>{html(report.title)}</h1>"]
    if report.question:
        body.append(f"<p>{html(report.question)}</p>")
    body += [facts_of(report.facts), f'<nav aria-label="sections">{links}</nav>']
    for section in report.sections:
        body.append(f'<section id="{html(section.name)}"><h2>{html(section.title)}</h2>')
        if section.content.rows:
            body.append(f'<div class="table">{table_of(section.content)}</div>')
        body += [f'<p class="note">{html(note)}</p>' for note in section.notes]
        if section.name == "slowdowns":
            body += [picture_of(picture) for picture in drawn if picture.name != "cost-per-event"]
        if section.name == "costs":
            body += [picture_of(picture) for picture in drawn if picture.name == "cost-per-event"]
        body.append("</section>")
    return document(report.title, body)
