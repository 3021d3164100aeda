"""What was not the same machine throughout a study: between its sessions, and from the start of one to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

STEADY: Mapping[str, str] = {
    "kernel": "kernel",
    "kernel_version": "build of the kernel",
    "command_line": "parameters of the kernel that bear on times",
    "cpu": "CPU",
    "cpus": "CPUs that may be used",
    "memory": "memory",
    "hypervisor": "hypervisor",
    "clock_source": "clock source",
    "governor": "frequency governor",
    "turbo_off": "turbo setting",
    "smt": "SMT setting",
    "mitigations": "mitigations",
    "randomize_va_space": "address space randomisation",
    "ringtape": "version of ringtape",
    "versions": "versions of the tools",
    "programs": "programs of the workloads",
}
"""What must be the same in every fingerprint for times to be comparable."""
HIGH_LOAD = 0.5
"""Runnable tasks for each CPU, before a session is begun, from which the machine was not idle."""
HIGH_STEAL = 0.02
_REST = "blocks of one state are comparable, times across them are not: run the study again into another folder, without a change"


def changes(sessions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield what changed, or was not as it should be, each with what to do.

    Parameters
    ----------
    sessions : sequence of mapping
        `Results.environment`: of each session ``before`` and ``after``, the fingerprints of the machine.
    """
    states = [state for session in sessions for name in ("before", "after") if isinstance(state := session.get(name), Mapping)]
    for key, word in STEADY.items():
        seen = [state[key] for state in states if state.get(key) is not None]
        texts = list(dict.fromkeys(json.dumps(value, sort_keys=True) for value in seen))
        if len(texts) > 1:
            yield f"the {word} changed: {_apart(seen, texts)}", _REST
    boots = {str(state["boot"]) for state in states if state.get("boot")}
    if len(boots) > 1:
        yield (
            f"the machine was started again between sessions ({len(boots)} boots)",
            "memory is laid out anew after a start: compare the blocks before and after it",
        )
    others = [_programs(state) for state in states]
    if len({count for count in others if count is not None}) > 1:
        found = ", ".join("unknown" if count is None else str(count) for count in others)
        yield f"the number of BPF programs of others changed: {found}", "they run at the same tracepoints: stop them, and run the study again"
    for number, session in enumerate(sessions, 1):
        yield from _session(number, session)


def _session(number: int, session: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    before, after = session.get("before"), session.get("after")
    if not isinstance(before, Mapping):
        return
    listed = before.get("cpus")
    cpus = len(listed) if isinstance(listed, list) and listed else 1
    load = before.get("load")
    if isinstance(load, list) and load and isinstance(load[0], int | float) and load[0] > HIGH_LOAD * cpus:
        yield f"load average {load[0]:.2f} on {cpus} CPUs before session {number}", "let the machine come to rest before a study is begun"
    governor = before.get("governor")
    if isinstance(governor, list) and governor and any(name not in ("performance", "userspace") for name in governor):
        names = ", ".join(str(name) for name in governor)
        yield (
            f"the frequency governor is {names} in session {number}",
            "cpupower frequency-set -g performance keeps the frequency from following the load",
        )
    if not isinstance(after, Mapping):
        yield f"session {number} was broken off: how the machine was at its end is not known", "the blocks that were complete count"
        return
    seconds = _number(after.get("time")) - _number(before.get("time"))
    stolen = _number(after.get("steal")) - _number(before.get("steal"))
    if seconds > 0 and stolen / (seconds * cpus) > HIGH_STEAL:
        share = stolen / (seconds * cpus)
        yield f"the host took {share:.1%} of the CPU time in session {number}", "run it on a machine of your own, or at a quieter time"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _programs(state: Mapping[str, Any]) -> int | None:
    counts = state.get("bpf")
    programs = counts.get("programs") if isinstance(counts, Mapping) else None
    return programs if isinstance(programs, int) else None


def _apart(seen: Sequence[Any], texts: Sequence[str]) -> str:
    """Return the values that differ; of mappings only what differs in them."""
    if all(isinstance(value, Mapping) for value in seen):
        names = sorted({str(name) for value in seen for name in value})
        different = [name for name in names if len({json.dumps(value.get(name), sort_keys=True) for value in seen}) > 1]
        return ", ".join(different)[:200]
    return "; ".join(text.strip('"')[:80] for text in texts[:4])
