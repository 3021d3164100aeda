"""Claims: sentences about a study that can be checked, such as ``slowdown(ringtape) < slowdown(strace)``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NoReturn

from ringtape.analysis.studies.declaration import BASELINE, Study, Workload
from ringtape.schemas.errors import UsageError

Operator = Literal["<", "<=", ">", ">=", "=="]
Scale = Literal["ratio", "difference", "every run"]
LONGEST = 500
FUNCTIONS: dict[str, tuple[Scale, str]] = {
    "slowdown": ("ratio", "time under the tool / time without, or the like by the workload's own metric"),
    "cost_per_event": ("difference", "wall time that an event adds, in ns"),
    "cpu_per_event": ("difference", "CPU time of the workload that an event adds, in ns"),
    "tool_cpu": ("difference", "CPU time of the tool itself in a run, in ns"),
    "bytes_per_event": ("ratio", "bytes on disk by event"),
    "lost": ("every run", "events lost in a run; holds if it holds in every run"),
    "lost_share": ("every run", "lost / (captured + lost) in a run; holds if it holds in every run"),
    "accuracy": ("every run", "only == equal: counts, errors and bytes are as the workload knows them, in every run"),
}
"""What claims can be of, on which scale two of them are compared, and what it is."""
_TIMES = {"ns": 1.0, "us": 1e3, "\u00b5s": 1e3, "\u03bcs": 1e3, "ms": 1e6, "s": 1e9}
_OF_TIME = ("cost_per_event", "cpu_per_event", "tool_cpu")
_CLAIM = re.compile(r"([^<>=!]+)(<=|>=|==|<|>)([^<>=!]+)")
_NUMBER = re.compile("([0-9]{1,15}(?:\\.[0-9]{1,15})?(?:e-?[0-9]{1,2})?)\\s*(%|ns|us|\u00b5s|\u03bcs|ms|s)?")
_CALL = re.compile(r"(?:([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(%?)\s*\*\s*)?([A-Za-z_]{1,40})\s*\(([^()]*)\)")
_FORM = "write slowdown(TREATMENT) < slowdown(TREATMENT), slowdown(TREATMENT, WORKLOAD) <= 1.25, lost(TREATMENT) == 0, or the like"


@dataclass(frozen=True)
class Quantity:
    """``factor`` times a function of a treatment."""

    function: str
    treatment: str
    factor: float = 1.0


@dataclass(frozen=True)
class Claim:
    """A claim that was read; ``workload`` is None where it is of every workload. ``right`` is None for ``== equal``."""

    text: str
    left: Quantity
    operator: Operator
    right: Quantity | float | None
    workload: str | None = None

    @property
    def treatments(self) -> Sequence[str]:
        """The treatments that it names."""
        return [self.left.treatment, *([self.right.treatment] if isinstance(self.right, Quantity) else [])]

    def is_of(self, workload: Workload, study: Study) -> bool:
        """Tell whether it says anything of a workload: it is run under all treatments that are named, and knows the truth if need be."""
        known = {one.name for one in study.treatments_of(workload)}
        return self.workload in (None, workload.name) and known.issuperset(self.treatments) and (self.right is not None or workload.truth)


def parse_claim(text: str, study: Study) -> Claim:
    """Read a claim.

    Parameters
    ----------
    text : str
        ``LEFT OPERATOR RIGHT``; the operators are < <= > >= and, of counts, ==. LEFT is ``FUNCTION(TREATMENT)`` or
        ``FUNCTION(TREATMENT, WORKLOAD)``, with ``NUMBER *`` before it if need be; RIGHT is the same, a number with % or a unit of time if
        need be, or, of accuracy, ``equal``. The functions are `FUNCTIONS`. Without a workload it is of every workload that has the
        treatments.
    study : Study
        Whose treatments and workloads it names.

    Raises
    ------
    UsageError
        If it has another form, or names what there is not; with what is close.
    """
    if len(text) > LONGEST:
        raise UsageError(f"a claim has {len(text):,} characters", f"write at most {LONGEST}")
    parts = _CLAIM.fullmatch(text.strip())
    if not parts:
        raise UsageError(f"the claim {text!r} has no comparison", _FORM)
    operator: Operator = parts[2]  # type: ignore[assignment]
    reader = _Reader(text, study)
    left, of_left = reader.quantity(parts[1].strip())
    right: Quantity | float | None
    of_right: str | None = None
    said = parts[3].strip()
    if left.function == "accuracy":
        if operator != "==" or said != "equal" or left.factor != 1:
            raise UsageError(f"the claim {text!r} compares an accuracy with {said!r}", "write accuracy(TREATMENT) == equal")
        right = None
    elif number := _NUMBER.fullmatch(said):
        right = reader.number(number, left)
    else:
        right, of_right = reader.quantity(said)
        if right.function != left.function:
            raise UsageError(f"the claim {text!r} compares {left.function} with {right.function}", "compare a function with itself, or with a number")
    if of_left and of_right and of_left != of_right:
        raise UsageError(f"the claim {text!r} compares the workloads {of_left} and {of_right}", "runs of different workloads are not comparable")
    if operator == "==" and FUNCTIONS[left.function][0] != "every run":
        raise UsageError(f"the claim {text!r} says ==, which what is measured never is exactly", "write <= and >=, each in a claim of its own")
    claim = Claim(text, left, operator, right, of_left or of_right)
    reader.can_be_run(claim)
    return claim


class _Reader:
    """Reads the sides of a claim."""

    def __init__(self, text: str, study: Study) -> None:
        self._text, self._study = text, study

    def number(self, match: re.Match[str], beside: Quantity) -> float:
        unit, of_time = match[2], beside.function in _OF_TIME
        if unit in _TIMES and not of_time:
            raise UsageError(f"the claim {self._text!r} compares {beside.function}, which is no time, with {match[0]}", "leave the unit out")
        if unit == "%" and of_time:
            raise UsageError(f"the claim {self._text!r} compares {beside.function}, a time, with {match[0]}", "give a time, such as 150 ns")
        return float(match[1]) * (0.01 if unit == "%" else _TIMES.get(unit, 1.0))

    def quantity(self, said: str) -> tuple[Quantity, str | None]:
        call = _CALL.fullmatch(said)
        if not call:
            raise UsageError(f"{said!r} in the claim {self._text!r} is nothing that can be compared", _FORM)
        function = call[3]
        if function not in FUNCTIONS:
            self._unknown("function", function, FUNCTIONS)
        names = [name.strip().strip("\"'") for name in call[4].split(",")]
        if len(names) > 2:
            raise UsageError(f"{said!r} in the claim {self._text!r} has {len(names)} arguments", f"write {function}(TREATMENT, WORKLOAD)")
        treatments = [one.name for one in self._study.treatments if one.name != BASELINE]
        if names[0] not in treatments:
            self._unknown("treatment", names[0], treatments)
        workload = names[1] if len(names) > 1 else None
        if workload is not None and all(one.name != workload for one in self._study.workloads):
            self._unknown("workload", workload, [one.name for one in self._study.workloads])
        factor = float(call[1]) * (0.01 if call[2] else 1) if call[1] else 1.0
        if not factor > 0:
            raise UsageError(f"the claim {self._text!r} multiplies by {call[1]}", "multiply by a number above 0")
        return Quantity(function, names[0], factor), workload

    def can_be_run(self, claim: Claim) -> None:
        """Refuse a claim of which there is no workload that is run under its treatments."""
        for workload in self._study.workloads:
            if claim.is_of(workload, self._study):
                return
        if claim.right is None and not any(workload.truth for workload in self._study.workloads):
            raise UsageError(
                f"the claim {self._text!r} can never be checked: no workload knows the truth", "add truth = true to a workload that does"
            )
        where = f"the workload {claim.workload} is" if claim.workload else "no workload is"
        raise UsageError(
            f"the claim {self._text!r} can never be checked: {where} {'not ' if claim.workload else ''}run under {' and '.join(claim.treatments)}",
            "name others, or change `only` and `treatments` of the study",
        )

    def _unknown(self, what: str, name: str, known: Iterable[str]) -> NoReturn:
        close = get_close_matches(name, list(known), 1)
        hint = f"did you mean {close[0]}?" if close else f"the {what}s are {', '.join(known) or 'none'}"
        raise UsageError(f"unknown {what} {name!r} in the claim {self._text!r}", hint)
