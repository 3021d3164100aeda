"""The report as one HTML page that needs nothing else: no network, no script, pictures inside."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from html import escape as html
from typing import TYPE_CHECKING

from ringtape.analysis.pictures import Picture, png
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.escape import escape

if TYPE_CHECKING:
    from ringtape.analysis.render import Cells
    from ringtape.analysis.report import Report

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
""".strip()


def page(report: Report, drawn: Mapping[str, tuple[Picture, ...]]) -> str:
    """Return the report as HTML; every text that came from the trace is escaped."""
    title = html(report.title)
    body = [f"<h1>{title}</h1>", _facts(report.facts), f'<div class="table">{_table(report.sizes)}</div>']
    for section in report.sections:
        body.append(f'<section id="{html(section.name)}"><h2>{html(section.title)}</h2>')
        if len(section.wide.rows) == 1 and len(section.wide.heads) > 12:
            body.append(_facts([pair for pair in zip(section.wide.heads, section.wide.rows[0], strict=True) if pair[1]]))
        elif section.wide.rows:
            body.append(f'<div class="table">{_table(section.wide)}</div>')
        body += [f'<p class="note">{html(note)}</p>' for note in section.notes]
        body += [_picture(picture) for picture in drawn.get(section.name, ())]
        body.append("</section>")
    body += [f'<p class="note">{html(line)}</p>' for line in report.untold]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} - ringtape</title><style>{STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _facts(pairs: Mapping[str, str] | list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> str:
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return "<dl>" + "".join(f"<dt>{html(name)}</dt><dd>{html(text)}</dd>" for name, text in items) + "</dl>"


def _table(content: Cells) -> str:
    def row(values: list[str], tag: str) -> str:
        kinds = ("n" if numeric else "t" if tag == "td" else "" for numeric in content.numeric)
        return "<tr>" + "".join(f'<{tag} class="{kind}">{html(value)}</{tag}>' for kind, value in zip(kinds, values, strict=True)) + "</tr>"

    return f"<table><thead>{row(content.heads, 'th')}</thead><tbody>{''.join(row(values, 'td') for values in content.rows)}</tbody></table>"


def _picture(picture: Picture) -> str:
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
    try:
        with open(file, "w", encoding="utf-8") as target:
            target.write(page(report, drawn))
    except OSError as error:
        raise RingtapeError(f"{escape(file)}: {os.strerror(error.errno or 0).lower()}", "name a file that can be written") from None
