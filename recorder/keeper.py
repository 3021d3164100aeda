"""Who is told what a writer does to the disk. This one lets everything pass; retention counts, and makes room."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from ringtape.schemas.manifest import Part


class Keeper:
    """Told of every step of a `TraceWriter`."""

    def room(self, size: int) -> None:
        """Hear that a part is about to take so much more of the disk."""

    def took(self, size: int) -> None:
        """Hear that something else has taken so much, or given it back (negative); the writer's lock may be held."""

    def rows(self, file: str, rows: pa.Table) -> None:
        """Hear of rows that go into a part."""

    def part(self, part: Part, replaces: Sequence[Part]) -> None:
        """Hear that a part stands, instead of others."""

    def failed(self, file: str) -> None:
        """Hear that a part did not come to stand."""
