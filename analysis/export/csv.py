r"""A table as CSV, codes decoded, with a head; bytes as text with \xNN for what is not printable UTF-8."""

from __future__ import annotations

from typing import IO

from ringtape.analysis import tabular
from ringtape.analysis.exporting import Choices
from ringtape.analysis.trace import Trace


def write(trace: Trace, file: IO[bytes], choices: Choices) -> list[str]:
    """Write the rows; a null is empty."""
    head = True
    for frame in tabular.rows(trace, choices.table):
        plain = tabular.listed(tabular.texts(frame, tabular.escaped))
        file.write(plain.write_csv(include_header=head).encode())
        head = False
    return []
