r"""Show the slowest calls with what surrounded them.

For each call: how its time divides (on a CPU, waiting for one, blocked and for what; needs the table sched), and by time
the thread's own calls, its scheduling, block requests (of other threads too: they share the disk), socket events, page
faults and stalls before, during and after it. Times are relative to the beginning of the call; after it, to its end.
What began before the call and ended during it stands before it, too.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ringtape.analysis.verb import add_narrowing, loss_sentence, narrowed

if TYPE_CHECKING:
    from ringtape.analysis.surroundings import Slow
    from ringtape.analysis.trace import Trace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (__doc__ or "").partition("\n\n")[2].replace("%", "%%")
    parser.add_argument("trace", metavar="TRACE", help="the folder that `ringtape record` made")
    parser.add_argument("--syscall", metavar="NAME", help="only calls of this name")
    parser.add_argument("--top", metavar="N", type=int, default=10, help="how many calls (default: %(default)s)")
    parser.add_argument("--around", metavar="TIME", default="1ms", help="how far before and after each call to look (default: %(default)s)")
    parser.add_argument("--limit", metavar="N", type=int, default=5, help="rows of each table before, during and after a call (default: %(default)s)")
    add_narrowing(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="form of the result (default: %(default)s)")
    parser.add_argument("--strict", action="store_true", help="refuse a trace in which anything was lost")


def run(args: argparse.Namespace) -> int:
    """Print the calls."""
    from ringtape.analysis.runs import open_trace
    from ringtape.analysis.surroundings import surroundings
    from ringtape.schemas.errors import RingtapeError
    from ringtape.schemas.escape import escape
    from ringtape.schemas.units import parse_duration

    trace = narrowed(open_trace(args.trace), args)
    lost = loss_sentence(trace)
    if lost and args.strict:
        raise RingtapeError(f"{trace.path}: {lost}", "leave --strict out to see what was recorded")
    found = surroundings(trace, syscall=args.syscall, top=args.top, around=parse_duration(args.around), limit=args.limit)
    sys.stdout.write(_json(trace, found) if args.format == "json" else _text(trace, found))
    if not found:
        print(f"ringtape: note: {escape(args.trace)}: no such call was recorded", file=sys.stderr)
    if lost:
        print(f"ringtape: note: {lost}: a slower call, or a part of what surrounded these, may be among them", file=sys.stderr)
    return 0


def _json(trace: Trace, found: list[Slow]) -> str:
    import json
    from dataclasses import asdict

    from ringtape.analysis.surroundings import not_recorded

    calls = []
    for slow in found:
        call, end = slow.call, slow.call.ts + slow.call.dur
        around = [
            {
                "phase": phase,
                "offset": one.ts - (end if phase == "after" else call.ts),
                "ts": one.ts,
                "dur": one.dur,
                "table": one.table,
                "text": one.text,
            }
            for phase, one in slow.around
        ]
        calls.append({**asdict(call), "spent": slow.spent, "around": around, "left_out": slow.left_out})
    return json.dumps({"calls": calls, "not_recorded": not_recorded(trace), "lost": dict(trace.lost())}, indent=1) + "\n"


def _text(trace: Trace, found: list[Slow]) -> str:
    from ringtape.analysis.render import share
    from ringtape.analysis.surroundings import not_recorded
    from ringtape.schemas.escape import harmless
    from ringtape.schemas.units import format_duration

    lines: list[str] = []
    for place, slow in enumerate(found, 1):
        call = slow.call
        took = f"{'' if call.whole else 'at least '}{format_duration(call.dur)}"
        lines.append(f"#{place}  {took}  {call.shown} = {call.result}")
        began = (call.ts - trace.header.attached_at) / 1e9
        lines.append(f"    {call.comm or '?'}, process {call.pid}, thread {call.tid}, at {began:+.6f} s of the recording")
        if slow.spent is not None:
            parts = [f"{name} {format_duration(time)} ({share(time / call.dur if call.dur else 0)})" for name, time in slow.spent.items()]
            lines.append(f"    its time: {', '.join(parts)}")
        elif "sched" in trace.tables:
            lines.append("    its time: no stay of this thread on a CPU was recorded")
        shown = False
        for phase, one in slow.around:
            if one.ts >= call.ts and not shown:
                lines.append(f"  > {'0':>14}  {took:>9}  {'the call':<9}  {call.shown}")
                shown = True
            offset = one.ts - (call.ts + call.dur if phase == "after" else call.ts)
            sign = "end +" if phase == "after" else "+" if offset >= 0 else "-"
            lines.append(
                f"    {sign + format_duration(abs(offset)):>14}  {format_duration(one.dur) if one.dur else '':>9}  {one.table:<9}  {one.text}"
            )
        if not shown:
            lines.append(f"  > {'0':>14}  {took:>9}  {'the call':<9}  {call.shown}")
        if slow.left_out:
            lines.append(f"    left out: {', '.join(f'{count:,} more of {name}' for name, count in slow.left_out.items())} (--limit)")
        lines.append("")
    absent = not_recorded(trace)
    if absent and found:
        lines.append(f"not recorded: {', '.join(absent)} (`ringtape record --tables` adds them)")
    return "".join(harmless(line) + "\n" for line in lines)
