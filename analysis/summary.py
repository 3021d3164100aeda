"""What a manifest says of its recording, as facts for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ringtape.analysis.words import words
from ringtape.schemas.escape import escape
from ringtape.schemas.units import format_duration, format_size

if TYPE_CHECKING:
    from ringtape.schemas.folder import TraceFolder

LISTED = 24
"""Events of a recording that are listed by name."""
STATES = {
    "recording": "still being recorded: what follows holds up to the last sealed part",
    "complete": "complete",
    "interrupted": "ended early by the user or a signal; all that was recorded is here",
    "failed": "the recorder failed; what it had sealed is here",
    "recovered": "recovered after the recorder was killed",
    "snapshot": "a snapshot: the last minutes of another recording, complete in themselves",
    "unfinished": "cut off: the recorder was killed; `ringtape recover` completes it",
}


def command_line(folder: TraceFolder) -> str:
    """Return the recorded command as a shell would take it, escaped; what was selected if there was no command."""
    if folder.header.command:
        return words(folder.header.command)
    target = folder.header.options.get("target")
    return escape(_plain(target)) if target else "(none)"


def options(folder: TraceFolder) -> str:
    """Return the options of the recording that are not empty, escaped; sizes with their units."""
    shown = []
    for name, value in folder.header.options.items():
        if name == "ring_size" and isinstance(value, dict):
            shown.append("ring size " + ", ".join(f"{table} {format_size(size)}" for table, size in value.items() if isinstance(size, int)))
        elif name == "min_duration" and isinstance(value, int) and value:
            shown.append(f"min duration {format_duration(value)}")
        elif name in ("keep", "max_size") and isinstance(value, int):
            shown.append(f"keep {format_duration(value)}" if name == "keep" else f"max size {format_size(value)}")
        elif name == "when" and isinstance(value, list):
            shown += [f"when {one}" for one in value]
        elif name not in ("remarks", "snapshot", "merge") and value not in (None, [], {}, False, "", 0):
            shown.append(name.replace("_", " ") + ("" if value is True else f" {_plain(value)}"))
    return escape("; ".join(shown))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items() if item not in (None, [], {}, ""))
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def span(folder: TraceFolder) -> tuple[int, int | None]:
    """Return the time from which calls are complete, and to which, in ns of CLOCK_MONOTONIC."""
    begin = max(folder.header.attached_at, folder.retired.until)
    if folder.footer is not None:
        return begin, folder.footer.detached_at
    return begin, max((part.max_ts for part in folder.manifest.parts), default=None)


def wall(folder: TraceFolder, mono: int) -> str:
    """Return a CLOCK_MONOTONIC time in ns as UTC, by the clocks of the header."""
    clock = folder.header.clock
    if clock.wall == 0:
        return "at a time that is not known"  # imported from a tool that does not tell it
    try:
        return datetime.fromtimestamp((clock.wall + mono - clock.mono) / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{mono} ns after boot"


def facts(folder: TraceFolder) -> Iterator[tuple[str, str]]:
    """Yield name and text of every fact worth reading."""
    header, footer = folder.header, folder.footer
    host = header.host
    begin, end = span(folder)
    yield "command", command_line(folder)
    state = STATES[folder.state]
    if footer is not None and footer.reason:
        state += f" ({escape(footer.reason)})"
    if footer is not None and footer.exit_status is not None:
        state += f", exit status {footer.exit_status}"
    yield "state", state
    yield "recorded", wall(folder, begin) + (f", {format_duration(end - begin)}" if end is not None else "")
    machine = [str(host[name]) for name in ("name", "kernel", "machine", "cpu") if host.get(name)]
    cpus = host.get("cpus")
    yield "machine", escape(", ".join(machine + ([f"{cpus} CPUs"] if cpus else [])))
    if isinstance(origin := header.options.get("snapshot"), dict):
        yield "snapshot of", escape(str(origin.get("trace", "")))
        yield "taken for", escape(_trigger(origin, begin))
    chosen = options(folder)
    if chosen:
        yield "options", chosen
    remarks = header.options.get("remarks")
    for remark in remarks if isinstance(remarks, list) else ():
        yield "remark", escape(str(remark))
    if header.events:
        yield "events", escape(_events(list(header.events)))
    yield "tools", escape(", ".join(f"{name} {version}" for name, version in header.tools.items()))
    for probe in header.probes:
        if not probe.attached:
            yield "not attached", escape(f"{probe.name}: {probe.reason}")
    if footer is not None and footer.filtered:
        yield "left out", f"{footer.filtered:,} calls by the filters"
    missing = [name for name in header.tables if name not in folder.tables]
    if missing:
        yield "not read", escape(f"tables {', '.join(missing)}: this version does not know them")
    if folder.retired.count:
        rows = sum(folder.retired.rows.values())
        yield "dropped", f"{rows:,} rows in {folder.retired.count:,} parts, {format_size(folder.retired.bytes)}: older than what is kept"
    yield "lost", losses(folder)
    if folder.manifest.cut:
        yield "manifest", "its last line was cut off, as happens when a recorder is killed; the line counts as absent"


def _trigger(origin: dict[str, Any], begin: int) -> str:
    """Return what made a recorder take a snapshot: the condition, and the call for which it held."""
    text = str(origin.get("trigger", ""))
    ts, tid, value = (origin.get(name) for name in ("ts", "tid", "value"))
    if not isinstance(value, int):
        return text
    if not isinstance(ts, int):
        return f"{text}: {value} lost"
    what = format_duration(value) if ">" in text else f"returned {value}"
    return f"{text}: {what}, thread {tid}, entered {format_duration(ts - begin)} after the beginning"


def _events(names: list[str]) -> str:
    """Return the names of the recorded tracepoints; of many only how many of each group."""
    if len(names) <= LISTED:
        return ", ".join(names)
    groups = Counter(name.partition(":")[0] for name in names)
    return ", ".join(f"{group}:* ({count})" for group, count in sorted(groups.items())) + "; `ringtape event-count` lists them"


def losses(folder: TraceFolder) -> str:
    """Return what was lost, in words."""
    lost = lost_records(folder)
    if not lost:
        return "nothing" if folder.footer is not None else "nothing up to the last sealed part"
    return ", ".join(f"{count:,} of {name}" for name, count in sorted(lost.items()))


def lost_records(folder: TraceFolder) -> dict[str, int]:
    """Return the records that are known to be lost, by table: those of the footer, else those that the last parts state."""
    if folder.footer is not None:
        return {table: count for table, count in folder.footer.lost.items() if count}
    result: dict[str, int] = {}
    for part in folder.manifest.parts:
        result[part.table] = max(result.get(part.table, 0), part.lost)
    return {table: count for table, count in result.items() if count}


def table_sizes(folder: TraceFolder) -> list[dict[str, Any]]:
    """Return rows, parts, bytes and bytes per row of every table that this version knows."""
    result = []
    for name in folder.tables:
        parts = folder.parts(name)
        rows, size = sum(part.rows for part in parts), sum(part.bytes for part in parts)
        per_row = size / rows if rows else None
        result.append(
            {"table": name, "version": folder.header.tables[name], "rows": rows, "parts": len(parts), "bytes": size, "bytes_per_row": per_row}
        )
    return result


def as_json(folder: TraceFolder) -> dict[str, Any]:
    """Return everything that the manifest says, except for the single parts."""
    from dataclasses import asdict

    begin, end = span(folder)
    return {
        "path": str(folder.path),
        "state": folder.state,
        "begin": begin,
        "end": end,
        "header": asdict(folder.header),
        "footer": None if folder.footer is None else asdict(folder.footer),
        "tables": table_sizes(folder),
        "lost": lost_records(folder),
    }


def size_cells(folder: TraceFolder) -> tuple[list[str], list[bool], list[list[str]]]:
    """Return the sizes of the tables as heads, numeric flags and rows of text."""
    rows = [
        [
            row["table"],
            f"{row['rows']:,}",
            f"{row['parts']:,}",
            format_size(row["bytes"]),
            "" if row["bytes_per_row"] is None else f"{row['bytes_per_row']:.2f}",
        ]
        for row in table_sizes(folder)
    ]
    return ["table", "rows", "parts", "size", "bytes per row"], [False, True, True, True, True], rows
