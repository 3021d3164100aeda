"""Stacks of threads, on the CPU at a frequency and off it when they blocked."""

from ringtape.schemas.columns import CPU, PID, TID, Column, seq, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="samples",
    version="1.0",
    doc=(
        "One row per stack: of a recorded thread that a timer found on a CPU (`--profile`), or that blocked (`--offcpu-stacks`). "
        "The stacks lie in the rows themselves, where nothing can collide and a recovered ring has them; Parquet keeps each distinct one once."
    ),
    default=False,
    ring_size=32 << 20,
    needs=("processes", "mappings", "symbols"),
    interrupts=True,
    cost="13 us a sample, the timer's interrupt included (0.13 % at --profile 99); 1.6 us each time that a thread blocks (--offcpu-stacks)",
    columns=(
        ts("when the timer fired (kind 0), or the thread left the CPU; when the probes were attached, if it slept already"),
        Column(
            "dur", "i64", "time off the CPU, waiting for one included; 0 for kind 0, of which each row stands for 1/--profile s", "ns", "sched_switch"
        ),
        seq(),
        PID,
        TID,
        Column(
            "state",
            "i32",
            "state in which the CPU was left: the kernel's bits (1 interruptible, 2 uninterruptible, 4 stopped, 8 traced); 0 for kind 0",
            "",
            "sched_switch: prev_state",
        ),
        CPU,
        Column(
            "kind",
            "i8",
            "what the row tells",
            "",
            "probe",
            {0: "on the CPU", 1: "off the CPU", 2: "off the CPU at detach"},
        ),
        Column("kernel", "bytes", "stack in the kernel: addresses of 8 bytes, little endian, innermost first; 63 at most", "", "bpf_get_stack"),
        Column(
            "user", "bytes", "stack of the program, in the same form; 127 at most, found by frame pointers", "", "bpf_get_stack(BPF_F_USER_STACK)"
        ),
    ),
)
