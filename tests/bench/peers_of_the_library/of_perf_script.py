"""The latency table from `perf script` text on standard input, written as people write such scripts: a line at a time."""

import sys
from collections import defaultdict


def main() -> None:
    entered: dict[str, tuple[int, float]] = {}
    durations: defaultdict[int, list[float]] = defaultdict(list)
    for line in sys.stdin:
        tid, at, event, rest = line.split(None, 3)
        if event.endswith("sys_enter:"):
            entered[tid] = (int(rest.split()[1]), float(at[:-1]))
        elif (pair := entered.pop(tid, None)) is not None:
            durations[pair[0]].append(float(at[:-1]) - pair[1])
    print(sum(map(len, durations.values())))
    for number, values in sorted(durations.items()):
        values.sort()
        print(number, len(values), *(values[max(0, -int(-q * len(values)) - 1)] for q in (0.5, 0.99, 0.999)), values[-1])


if __name__ == "__main__":
    main()
