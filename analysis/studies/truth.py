"""What a workload knows of its own system calls: the last line of its output that is a JSON object with ``calls``.

For example ``{"calls": {"getppid": {"count": 1000}, "openat": {"count": 50, "errors": 50}, "nanosleep": {"count": 3, "time": 30064771}}}``:
by system call, ``count``, and, where known, ``errors``, ``time`` (ns, measured around the calls) and ``bytes`` (sum of what they
returned). It names the calls only of which it knows all that its processes make, those of their start included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ringtape.analysis.studies.treatments import Tally
from ringtape.schemas.errors import RingtapeError

_LIMIT = 1 << 63
_HINT = 'a workload with truth = true prints a line such as {"calls": {"getppid": {"count": 1000}}}'


def parse_truth(output: bytes) -> Mapping[str, Tally]:
    r"""Read what a workload says of its calls.

    Parameters
    ----------
    output : bytes
        Its standard output.

    Returns
    -------
    mapping of str to Tally
        By name of the system call.

    Raises
    ------
    RingtapeError
        If there is no such line, or its values are no counts.

    Examples
    --------
    >>> parse_truth(b'ready\n{"calls": {"getppid": {"count": 3}}}\n')["getppid"].count
    3
    """
    for line in reversed(output.splitlines()):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict) and isinstance(said.get("calls"), dict):
            return {name: _tally(name, what) for name, what in said["calls"].items()}
    raise RingtapeError("the workload does not say what calls it made", _HINT)


def _tally(name: str, said: Any) -> Tally:
    known = ("count", "errors", "time", "bytes")
    if not isinstance(said, dict) or "count" not in said or not set(said) <= set(known):
        raise RingtapeError(f"the workload says of {name}: {str(said)[:100]}", _HINT)
    for value in said.values():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LIMIT:
            raise RingtapeError(f"the workload says of {name}: {str(said)[:100]}", "its values are whole numbers from 0")
    return Tally(**said)
