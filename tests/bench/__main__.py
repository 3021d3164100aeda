"""Run the bench: ``./run bench [--quick] [--only SECTION] [--json FILE]``, as root."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import machine
from tests.bench.figures import Section
from tests.bench.workshop import Workshop


def _null_call(shop: Workshop) -> Section:
    from tests.bench import null_call

    return null_call.measure(shop)


def _throughput(shop: Workshop) -> Section:
    from tests.bench import throughput

    return throughput.measure(shop)


def _event_size(shop: Workshop) -> Section:
    from tests.bench import event_size

    return event_size.measure(shop)


def _two_cpus(shop: Workshop) -> Section:
    from tests.bench import two_cpus

    return two_cpus.measure(shop)


def _response(shop: Workshop) -> Section:
    from tests.bench import response

    return response.measure(shop)


def _families(shop: Workshop) -> Section:
    from tests.bench import family_cost

    return family_cost.measure(shop)


def _family_pairs(shop: Workshop) -> Section:
    from tests.bench import family_pairs

    return family_pairs.measure(shop)


def _server(shop: Workshop) -> Section:
    from tests.bench import server

    return server.measure(shop)


def _library(shop: Workshop) -> Section:
    from tests.bench import library

    return library.measure(shop)


def _analyses(shop: Workshop) -> Section:
    from tests.bench import analyses

    return analyses.measure(shop)


SECTIONS: dict[str, Callable[[Workshop], Section]] = {
    "null-call": _null_call,
    "throughput": _throughput,
    "event-size": _event_size,
    "two-cpus": _two_cpus,
    "families": _families,
    "family-pairs": _family_pairs,
    "server": _server,
    "response": _response,
    "library": _library,
    "analyses": _analyses,
}


def main() -> int:
    """Measure and print; the status tells only whether everything could be measured."""
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure ringtape beside its peers in one run.")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="measure this section only (repeatable)")
    parser.add_argument("--quick", action="store_true", help="try everything once with few calls: shows that it works, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all raw values")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: error: measuring needs root\nhint: sudo ./run bench", file=sys.stderr)
        return 1
    told = machine.describe()
    print("# ringtape bench" + (" (quick: not a measurement)" if args.quick else ""), end="\n\n")
    print(machine.markdown(told), flush=True)
    began, stolen = time.monotonic(), machine.steal()
    sections, failed = [], False
    with tempfile.TemporaryDirectory(prefix="ringtape-bench.") as folder:
        shop = Workshop(Path(folder), args.quick)
        for name in args.only or SECTIONS:
            try:
                sections.append(SECTIONS[name](shop))
            except RuntimeError as error:
                failed = True
                print(f"bench: error: {name}: {error}", file=sys.stderr)
                continue
            print(sections[-1].markdown(), flush=True)
        elapsed = time.monotonic() - began
        closing = {
            "elapsed": f"{elapsed:.0f} s",
            "load average at the end": " ".join(f"{value:.2f}" for value in os.getloadavg()),
            "CPU time that the hypervisor gave to others": f"{machine.steal() - stolen:.2f} s",
            "runs repeated because somebody else attached BPF programs": str(shop.quiet.repeated),
            "runs kept although somebody else did": str(shop.quiet.disturbed),
            "BPF links that were there all the time": str(shop.quiet.standing),
        }
    print("## The run\n")
    print("\n".join(f"- {what}: {value}" for what, value in closing.items()))
    if args.json:
        args.json.write_text(json.dumps({"machine": told, "run": closing, "sections": [section.json() for section in sections]}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
