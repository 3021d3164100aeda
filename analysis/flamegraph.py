"""Stacks as other tools read them, and as a picture: folded lines, speedscope's JSON, an SVG that can be searched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

from ringtape.analysis.naming import comm_text
from ringtape.analysis.stacks import Of, Stacks
from ringtape.analysis.trace import Trace
from ringtape.schemas.units import format_duration

Format = Literal["folded", "speedscope", "svg"]
ROW, FONT = 17, 12
LETTER = 0.6 * FONT
MARGIN, BUTTONS = 24, 200
NARROWEST = 1e-5
"""Share of the whole below which a box is not drawn: a tenth of a pixel on a wide screen."""
_SCRIPT = Path(__file__).with_name("flamegraph.js")


def roots(trace: Trace, found: Stacks) -> list[str]:
    """Return the command name that the process of each stack had last: what stands below its outermost function."""
    last: dict[int, str] = {}
    if "processes" in trace.tables:
        for row in trace.collect(trace.scan("processes").select("ts", "pid", "tid", "comm").sort("ts")).iter_rows(named=True):
            if row["pid"] == row["tid"]:
                last[row["pid"]] = comm_text(row["comm"])
    return [last.get(pid, "?") for pid in found.groups["pid"].to_list()]


def lines_of(trace: Trace, found: Stacks) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield each stack, outermost function first, and its time in ns."""
    for root, frames, time in zip(roots(trace, found), found.frames, found.groups["time"].to_list(), strict=True):
        yield (root, *(found.names[frame] for frame in frames[::-1].tolist())), time


def folded(trace: Trace, found: Stacks) -> str:
    """Return a line per stack: functions from the outermost on, separated by semicolons, then the time in ns."""
    summed: dict[str, int] = {}
    for names, time in lines_of(trace, found):
        line = ";".join(name.replace(";", ":") for name in names)
        summed[line] = summed.get(line, 0) + time
    return "".join(f"{line} {time}\n" for line, time in sorted(summed.items()))


def speedscope(trace: Trace, found: Stacks, title: str) -> str:
    """Return a profile that https://www.speedscope.app opens, one for each command name."""
    frames: list[dict[str, str]] = [{"name": name, "file": module} for name, module in zip(found.names, found.modules, strict=True)]
    numbers: dict[str, int] = {}
    profiles: dict[str, dict[str, Any]] = {}
    for root, stack, time in zip(roots(trace, found), found.frames, found.groups["time"].to_list(), strict=True):
        if root not in numbers:
            numbers[root] = len(frames)
            frames.append({"name": root})
            profiles[root] = {"type": "sampled", "name": root, "unit": "nanoseconds", "startValue": 0, "endValue": 0, "samples": [], "weights": []}
        one = profiles[root]
        one["samples"].append([numbers[root], *stack[::-1].tolist()])
        one["weights"].append(time)
        one["endValue"] += time
    content = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": title,
        "exporter": "ringtape",
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": sorted(profiles.values(), key=lambda one: -int(one["endValue"])),
    }
    return json.dumps(content, ensure_ascii=True) + "\n"


@dataclass
class Node:
    """A box: a function called by the one below it, and the time that it and those above it took."""

    time: int = 0
    inner: dict[str, Node] = field(default_factory=dict)


def tree(trace: Trace, found: Stacks) -> Node:
    """Return the stacks as a tree."""
    root = Node()
    for names, time in lines_of(trace, found):
        root.time += time
        node = root
        for name in names:
            node = node.inner.setdefault(name, Node())
            node.time += time
    return root


def boxes(root: Node) -> Iterator[tuple[int, float, float, str, int]]:
    """Yield depth, begin and width (shares of the whole), name and time of each box, callers before what they call."""
    if not root.time:
        return
    pending = _placed(root, -1, 0)
    while pending:
        depth, begin, name, node = pending.pop()
        if node.time / root.time >= NARROWEST:
            yield depth, begin / root.time, node.time / root.time, name, node.time
            pending.extend(_placed(node, depth, begin))


def _placed(node: Node, depth: int, begin: int) -> list[tuple[int, int, str, Node]]:
    placed = []
    for name, inner in sorted(node.inner.items()):
        placed.append((depth + 1, begin, name, inner))
        begin += inner.time
    return placed[::-1]


def svg(trace: Trace, found: Stacks, of: Of, title: str) -> str:
    """Return a picture that stands by itself: a click enlarges a box, a search marks functions, nothing is fetched.

    Names reach it as text and attributes only, escaped; the script is a constant of ringtape.
    """
    root = tree(trace, found)
    drawn = list(boxes(root))
    depth = max((box[0] for box in drawn), default=0) + 1
    width, height = 1200, depth * ROW + 3 * MARGIN
    whole = f": {format_duration(root.time)}"
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" version="1.1" viewBox="0 0 {width} {height}" width="100%" font-family="sans-serif" '
            f'font-size="{FONT}" data-time="{root.time}">'
        ),
        f"<title>{_markup(title)}</title>",
        (
            "<style>.box{cursor:pointer}.box:hover rect{stroke:#000}text{pointer-events:none}.found rect{fill:#7b3fe4}.found text{fill:#fff}"
            "#search,#reset{cursor:pointer;pointer-events:auto;fill:#1f5fa8}</style>"
        ),
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="8" y="{MARGIN - 8}">{_markup(_fitting(title, width - BUTTONS - len(whole) * LETTER))}{_markup(whole)}</text>',
        f'<text id="reset" x="{width - BUTTONS + 20}" y="{MARGIN - 8}">whole</text>',
        f'<text id="search" x="{width - 120}" y="{MARGIN - 8}">search</text>',
        f'<text id="said" x="8" y="{height - 8}"> </text>',
        f'<svg id="boxes" x="0" y="{MARGIN}" width="{width}" height="{depth * ROW}">',
    ]
    for level, begin, share, name, time in drawn:
        x, wide, y = begin * width, share * width, (depth - 1 - level) * ROW
        tip = f"{name}: {format_duration(time)}, {100 * share:.2f} %"
        shown = _fitting(name, wide)
        parts.append(
            f'<g class="box" data-x="{round(begin * root.time)}" data-w="{time}" data-y="{level}" data-name="{_markup(name)}">'
            f"<title>{_markup(tip)}</title>"
            f'<rect x="{x:.2f}" y="{y}" width="{max(wide, 0.1):.2f}" height="{ROW - 1}" fill="{_colour(name, of)}"/>'
            f'<text x="{x + 3:.2f}" y="{y + ROW - 5}">{_markup(shown)}</text></g>'
        )
    script = _SCRIPT.read_text().replace("]]>", "")
    parts.append(f"</svg><script>//<![CDATA[\n{script}\n//]]></script></svg>\n")
    return "".join(parts)


def _markup(text: str) -> str:
    """Return a text as the content of an element or an attribute; XML knows no way to write the two characters that are none."""
    return escape(text.replace("\ufffe", "?").replace("\uffff", "?"))


def _fitting(name: str, width: float) -> str:
    letters = int((width - 6) / LETTER)
    return name if len(name) <= letters else f"{name[: letters - 1]}…" if letters > 2 else ""


def _colour(name: str, of: Of) -> str:
    """Return a colour that a function has in every picture: warm on the CPU, cool off it, the kernel's apart."""
    mixed = 0
    for letter in name.encode("utf-8", "surrogatepass"):
        mixed = (mixed * 31 + letter) & 0xFFFF
    shade = mixed % 50
    if name.endswith("_[k]"):
        hue = 30 if of == "cpu" else 265
    elif "+0x" in name or name.startswith("["):
        return f"hsl(0,0%,{70 + shade // 4}%)"
    else:
        hue = 8 if of == "cpu" else 200
    return f"hsl({hue + shade // 4},{70 - shade // 3}%,{66 + shade // 5}%)"
