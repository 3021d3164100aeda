"""What a workload says of itself: a number found in its output."""

from __future__ import annotations

import json
import math
import re
import statistics
from typing import Any

from ringtape.analysis.studies.declaration import Metric
from ringtape.schemas.errors import RingtapeError


def measure(metric: Metric, output: bytes) -> float:
    """Return the number that a metric asks for.

    Parameters
    ----------
    metric : Metric
        Where it stands.
    output : bytes
        Standard output of the command.

    Raises
    ------
    RingtapeError
        If it is not there, or no positive number.

    Examples
    --------
    >>> measure(Metric("requests/s", regex=r"([0-9.]+) per second"), b"GET 200 per second, SET 50 per second")
    80.0
    >>> measure(Metric("rate", regex="([0-9]+)/s", combine="last"), b"0/s 7/s 9/s")
    9.0
    """
    text = output.decode(errors="replace")
    found = _by_path(metric, text) if metric.json else re.findall(metric.regex, text, re.MULTILINE)
    if not found:
        raise RingtapeError(f"the metric {metric.name} is not in the output of the command: {text[-200:]!r}", "check its regex or json path")
    if metric.combine == "last":
        found = found[-1:]
    try:
        values = [float(value.replace(",", "") if isinstance(value, str) else value) for value in found]
    except (TypeError, ValueError):
        raise RingtapeError(
            f"the metric {metric.name} is no number: {found[0]!r:.100}", "put the parentheses of the regex around the number"
        ) from None
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise RingtapeError(f"the metric {metric.name} is {min(values)}", "a metric is a number above 0")
    if metric.combine == "sum":
        return math.fsum(values)
    return statistics.harmonic_mean(values) if metric.better == "higher" else statistics.fmean(values)


def _by_path(metric: Metric, text: str) -> list[Any]:
    """Return the value at a path of a JSON document: the whole output, or its last line that is one."""
    lines = [line for line in text.splitlines() if line.lstrip().startswith(("{", "["))]
    for candidate in (text, *reversed(lines)):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        for part in metric.json.split("."):
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return []
        return [value] if isinstance(value, int | float | str) and not isinstance(value, bool) else []
    return []
