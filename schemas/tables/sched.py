"""Scheduling."""

from ringtape.schemas.columns import CPU, PID, TID, Column, seq, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="sched",
    version="1.0",
    doc="One row per stay of a recorded thread on a CPU, with how it came to run and how it was left.",
    default=False,
    cost="below 1 µs per stay (lost in the noise of hackbench); 10 to 20 bytes per stay",
    ring_size=64 << 20,
    needs=("processes",),
    columns=(
        ts("when the thread was put on the CPU (kinds 3 and 4: when the recording ended)", "sched_switch: next"),
        Column("dur", "i64", "time on the CPU", "ns", "sched_switch: prev"),
        Column("wait", "i64", "time before ts that the thread was runnable and waited for a CPU; -1: unknown", "ns", "sched_waking, sched_switch"),
        Column(
            "run",
            "i64",
            "CPU time of the stay as the kernel accounts it: without what picking the next thread took, and interrupts where it tells them apart",
            "ns",
            "sched_entity.sum_exec_runtime",
        ),
        seq(),
        PID,
        TID,
        Column(
            "waker",
            "i32",
            "thread that ran where the wake-up came from; 0: an idle CPU, or none (runnable all the time)",
            "",
            "sched_waking: current",
        ),
        Column("waker_pid", "i32", "process of the waker", "", "sched_waking: current"),
        Column("slice", "i32", "number of the stay among those of its thread, from 0 on; a gap is a loss", "count"),
        Column(
            "state",
            "i32",
            "state left in: 0 runnable, else the kernel's bits (1 interruptible, 2 uninterruptible, 4 stopped, 8 traced, 128 dead)",
            "",
            "sched_switch: prev_state",
        ),
        CPU,
        Column("migrations", "i16", "times that the thread was moved to another CPU since its stay before", "count", "sched_migrate_task"),
        Column(
            "context",
            "i8",
            "what the wake-up came from: the waker itself (also through a softirq for network or block that it alone had asked for), or an interrupt"
            " that came while the waker ran (then a softirq may work for it, or for another)",
            "",
            "irq_handler, softirq, local_timer, call_function: entry and exit; softirq_raise",
            {0: "task", 1: "softirq", 2: "hardirq"},
        ),
        Column("preempt", "i8", "1 if the CPU was taken away inside of the kernel: runnable, whatever state says", "", "sched_switch"),
        Column(
            "kind",
            "i8",
            "how the stay began and ended; where its arrival was not seen, it began as long before its end as the kernel accounts CPU time",
            "",
            "probe",
            {0: "whole", 1: "running at attach", 2: "running at detach", 3: "waiting at detach", 4: "blocked at detach", 5: "arrival not seen"},
        ),
    ),
)
