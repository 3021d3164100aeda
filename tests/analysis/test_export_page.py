"""docs/export.md speaks of every form, and of the numbers that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from ringtape.analysis import exporting, perfetto_counters, pieces

PAGE = (Path(__file__).parent.parent.parent / "docs/export.md").read_text(encoding="utf-8")


def test_every_form_has_a_line_and_a_chapter() -> None:
    chapters = {name for head in re.findall(r"^## (.+)$", PAGE, re.MULTILINE) for name in head.split(", ")}
    lines = {name for row in re.findall(r"^\| (`.+?`) \|", PAGE, re.MULTILINE) for name in row.replace("`", "").split(", ")}
    assert set(exporting.names()) == lines == chapters - {"Memory and size"}


def test_its_numbers_are_those_of_the_code() -> None:
    assert f"{pieces.AT_ONCE:,} rows" in PAGE
    assert (perfetto_counters.STEPS, perfetto_counters.SHORTEST) == (1000, 1_000_000)
    assert "a thousandth of the recording, and of no less than 1 ms" in " ".join(PAGE.split())
