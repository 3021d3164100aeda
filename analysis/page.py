"""The report as one HTML page that needs nothing else: no network, pictures inside, one script of ringtape's own that sorts tables."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from html import escape as html
from pathlib import Path
from typing import TYPE_CHECKING

from ringtape.analysis.pictures import Picture, png
from ringtape.analysis.words import words
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.escape import escape

if TYPE_CHECKING:
    from ringtape.analysis.render import Cells
    from ringtape.analysis.report import Report, Section

STYLE = """
:root{color-scheme:light}
body{font:16px/1.45 system-ui,sans-serif;color:#222;background:#fff;max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.3rem;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:2.2rem 0 .6rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:0}
dt{color:#666}dd{margin:0;overflow-wrap:anywhere}
.table{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .75rem .25rem 0;text-align:left;vertical-align:top;white-space:pre}
th{border-bottom:1px solid #999;font-weight:600}
td.n,th.n{text-align:right}td.t{white-space:pre-wrap;overflow-wrap:anywhere;min-width:6rem;max-width:32rem}
tbody tr:nth-child(even){background:#f6f6f6}
.note{color:#666;font-size:.9rem;margin:.4rem 0}
figure{margin:1.2rem 0}img{max-width:100%;height:auto}figcaption{color:#666;font-size:.9rem}
nav{margin:1.2rem 0;font-size:.9rem;line-height:1.9}nav a{margin-right:.9rem;white-space:nowrap}
a{color:#225588}
.how{color:#666;font-size:.8rem;margin:.4rem 0}.how code{overflow-wrap:anywhere}
.sorts th{cursor:pointer}.sorts th[aria-sort]::after{content:" \\2193"}.sorts th[aria-sort=ascending]::after{content:" \\2191"}
th:focus-visible{outline:2px solid #225588}
@media (max-width:40rem){body{padding:.6rem}dl{grid-template-columns:1fr}dt{margin-top:.4rem}th,td{padding-right:.5rem}}
@media print{body{max-width:none;font-size:10pt}nav{display:none}.table{overflow:visible}table{font-size:7pt}
td,td.t{white-space:pre-wrap;overflow-wrap:anywhere}h2{break-after:avoid}figure,tr{break-inside:avoid}a{color:inherit}}
""".strip()
_SCRIPT = Path(__file__).with_name("page.js")


def page(report: Report, drawn: Mapping[str, tuple[Picture, ...]]) -> str:
    """Return the report as HTML; every text that came from the trace is escaped."""
    links = "".join(f'<a href="#{html(section.name)}">{html(section.name.replace("_", "-"))}</a> ' for section in report.sections)
    body = [
        f"<h1>{html(report.title)}</h1>",
        facts_of(report.facts),
        f'<nav aria-label="sections">{links}</nav>',
        f'<div class="table">{table_of(report.sizes)}</div>',
    ]
    for section in report.sections:
        body.append(f'<section id="{html(section.name)}"><h2>{html(section.title)}</h2>')
        if len(section.wide.rows) == 1 and len(section.wide.heads) > 12:
            body.append(facts_of([pair for pair in zip(section.wide.heads, section.wide.rows[0], strict=True) if pair[1]]))
        elif section.wide.rows:
            body.append(f'<div class="table">{table_of(section.wide)}</div>')
        body += [f'<p class="note">{html(note)}</p>' for note in section.notes]
        body.append(_how(report, section))
        body += [picture_of(picture) for picture in drawn.get(section.name, ())]
        body.append("</section>")
    body += [f'<p class="note">{html(line)}</p>' for line in report.untold]
    return document(report.title, body)


def document(title: str, body: Iterable[str]) -> str:
    """Return a page of pieces of HTML, in which every text has been escaped; the title is a text."""
    script = _SCRIPT.read_text(encoding="utf-8")
    # Only the script whose hash stands here may run, and nothing may be fetched.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html(title)} - ringtape</title><style>{STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + f"\n<script>{script}</script></body></html>\n"


def facts_of(pairs: Mapping[str, str] | list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> str:
    """Return names and their texts as HTML."""
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return "<dl>" + "".join(f"<dt>{html(name)}</dt><dd>{html(text)}</dd>" for name, text in items) + "</dl>"


def _how(report: Report, section: Section) -> str:
    """Return how the numbers of a section are made again: the verb, and the call of the library."""
    verb = f"ringtape {section.name.replace('_', '-')} {words([report.path])}"
    call = f"from ringtape.analysis.analyses.{section.name} import {section.name}; {section.name}(ringtape.open({report.path!r}))"
    return f'<p class="how">again: <code>{html(escape(verb))}</code><br>in Python: <code>import ringtape; {html(escape(call))}</code></p>'


def table_of(content: Cells) -> str:
    """Return a table as HTML; one with keys can be sorted."""
    named = zip(content.heads, content.numeric, strict=True)
    heads = "".join(f'<th scope="col" class="{"n" if numeric else ""}">{html(head)}</th>' for head, numeric in named)
    keys = content.keys or [[None] * len(content.heads)] * len(content.rows)
    rows = "".join(
        "<tr>" + "".join(_cell(value, key, numeric) for value, key, numeric in zip(values, numbers, content.numeric, strict=True)) + "</tr>"
        for values, numbers in zip(content.rows, keys, strict=True)
    )
    return f'<table class="{"sorts" if content.keys else ""}"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _cell(value: str, key: float | None, numeric: bool) -> str:
    by = "" if key is None else f' data-v="{key!r}"'
    return f'<td class="{"n" if numeric else "t"}"{by}>{html(value)}</td>'


def picture_of(picture: Picture) -> str:
    """Return a picture as HTML."""
    data = base64.b64encode(png(picture.figure)).decode()
    caption = html(picture.caption)
    return f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def write_page(report: Report, drawn: Mapping[str, tuple[Picture, ...]], file: str) -> None:
    """Write the page.

    Raises
    ------
    RingtapeError
        If the file cannot be written.
    """
    save_page(page(report, drawn), file)


def save_page(text: str, file: str) -> None:
    """Write the text of a page to a file.

    Raises
    ------
    RingtapeError
        If the file cannot be written.
    """
    try:
        with open(file, "w", encoding="utf-8") as target:
            target.write(text)
    except OSError as error:
        raise RingtapeError(f"{escape(file)}: {os.strerror(error.errno or 0).lower()}", "name a file that can be written") from None
