"""Show a recording while it is made: calls, processes, connections and the slowest calls of the last seconds.

It follows the folder that `ringtape record` writes, from another terminal, as any user who may read it; several may look at once.
Without a terminal, or with --once or --json, it prints snapshots: with --once one, else one per interval until the recording ends.
"""

from __future__ import annotations

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``ringtape top``."""
    from ringtape.analysis.live.options import add_options

    parser.epilog = (__doc__ or "").partition("\n\n")[2].replace("%", "%%")
    parser.add_argument("trace", metavar="TRACE", help="the folder that `ringtape record` is making")
    parser.add_argument("--until-end", action="store_true", help="leave the screen when the recording has ended")
    parser.add_argument(
        "--prometheus",
        metavar="ADDRESS",
        help="serve counters and latency histograms for Prometheus instead, such as 9750 (loopback) or 192.0.2.1:9750, until the recording ends",
    )
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Show the recording."""
    # Rows come a few thousand at a time: to wake other threads for them costs more than they do. Read when polars is first imported.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    from ringtape.analysis.live.options import read_options
    from ringtape.analysis.live.show import show
    from ringtape.analysis.live.watcher import Watcher

    if args.prometheus is not None:
        from ringtape.analysis.live.exporter import serve

        return serve(args.trace, args.prometheus)

    options = read_options(args)
    return show(Watcher(args.trace, options, args.until_end), options)
