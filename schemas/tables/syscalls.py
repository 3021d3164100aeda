"""System calls."""

from ringtape.schemas.columns import ABI, CPU, PID, TID, Column, seq, ts
from ringtape.schemas.table import Table


def _arg(index: int) -> Column:
    return Column(f"arg{index}", "i64", f"argument {index}; 0 beyond the call's arity", "", "sys_enter: pt_regs")


TABLE = Table(
    name="syscalls",
    version="1.1",
    doc="One row per finished system call, and per call that was still running when the recording began or ended.",
    ring_size=256 << 20,
    cost="0.3 µs per call (a null call of 0.17 µs becomes 0.46); 1 to 9 bytes per call",
    columns=(
        ts("when the call was entered (when the probes were attached, for a call that was already running)"),
        Column("dur", "i64", "time from entry to return, or to the end of the recording or of the thread", "ns", "sys_exit - sys_enter"),
        Column("ret", "i64", "return value; a negative errno on failure; 0 where the call did not return", "", "sys_exit: ret"),
        *(_arg(index) for index in range(6)),
        seq(),
        PID,
        TID,
        Column("nr", "i32", "system call number, to be read with abi", "", "sys_enter: id"),
        CPU,
        ABI,
        Column(
            "kind",
            "i8",
            "how the call began and ended; intercepted: seccomp or a tracer answered it before it began, so that dur is 0 and nr may be in ret",
            "",
            "pairing in the probe",
            {
                0: "returned",
                1: "no return",
                2: "running at attach",
                3: "unfinished at detach",
                4: "child of clone",
                5: "intercepted",
            },
        ),
    ),
)
