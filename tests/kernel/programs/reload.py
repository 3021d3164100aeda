"""Load, attach and give back all families again and again; print what the process then holds, one JSON object a round."""

import json
import os
import sys
from pathlib import Path

from ringtape.recorder import bpf
from ringtape.recorder.events import choose_events
from ringtape.recorder.kernel import load
from ringtape.recorder.options import Options, Target, choose_tables
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.table import tables


def main(rounds: int, with_events: int) -> None:
    chosen = choose_tables("all", ("events", "samples"))
    sizes = {name: 64 << 10 for name in chosen if tables()[name].origin == "ring"}
    plain = choose_tables("all", ("samples",))
    event = choose_events(["sched:sched_process_wait"])
    for number in range(rounds):
        every_so_often = number % with_events == 0
        given = {"events": event} if every_so_often else {}
        options = Options(Target(everything=True), chosen if every_so_often else plain, ring_sizes=sizes, profile=99, offcpu=1_000_000, **given)
        try:
            kernel = load(options)
        except RingtapeError as error:
            sys.exit(error.what)
        kernel.attach()
        missing = [probe.name for probe in kernel.probes if not probe.attached]
        kernel.close()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * bpf.PAGE
        print(json.dumps({"missing": missing, "descriptors": len(os.listdir("/proc/self/fd")), "resident": resident}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
