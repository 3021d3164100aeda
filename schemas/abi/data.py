"""Reads the data files beside it: tab-separated, a line that begins with # is a comment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_FOLDER = Path(__file__).parent


def rows(name: str) -> Iterator[list[str]]:
    """Yield the fields of each line of ``<name>.tsv``."""
    with open(_FOLDER / f"{name}.tsv", encoding="ascii") as file:
        for line in file:
            if not line.startswith("#"):
                yield line.rstrip("\n").split("\t")
