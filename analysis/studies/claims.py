"""Claims: sentences about a study that can be checked, such as ``slowdown(ringtape) < slowdown(strace)``."""

from __future__ import annotations

from ringtape.analysis.studies.declaration import Study


def parse_claim(text: str, study: Study) -> None:
    """Read a claim; see `Study.claims`."""
    raise NotImplementedError
