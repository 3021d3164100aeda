"""Interleaving: every variant once a round, in an order drawn anew for each round, so that drift hits all alike."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from tests.bench.bystanders import Quiet

Result = TypeVar("Result")
SEED = 20240229
"""The order is random, but the same every time."""


def interleave(variants: Mapping[str, Callable[[], Result]], count: int, quiet: Quiet) -> dict[str, list[Result]]:
    """Return the results of each variant, one per round."""
    order = random.Random(SEED)
    results: dict[str, list[Result]] = {name: [] for name in variants}
    for index in range(count):
        names = list(variants)
        order.shuffle(names)
        for name in names:
            print(f"bench: round {index + 1} of {count}: {name}", file=sys.stderr)
            results[name].append(quiet.run(variants[name]))
    return results
