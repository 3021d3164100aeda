"""The tables in which a study keeps its results: what each run took, and what each tool said of the calls in it."""

from ringtape.schemas.columns import Column
from ringtape.schemas.table import Table

_START = Column("ts", "i64", "start of the run: time since 1970 (UTC)", "ns", "clock of the machine", encoding="delta")
_RUN = Column("run", "i32", "number of the run in its study, from 0", "", "runner", encoding="delta")
_CLOCK, _USAGE = "CLOCK_MONOTONIC around the command", "wait4"

RUNS = Table(
    name="runs",
    version="1.0",
    doc="One row per run of a workload under a treatment.",
    origin="study",
    columns=(
        _START,
        Column("wall", "i64", "from the start of the command to its end; the tool's own start and end are not in it", "ns", _CLOCK),
        Column("total", "i64", "from the start of the tool to its end, servers started and stopped, files written", "ns", _CLOCK),
        Column("user", "i64", "CPU time in user mode of the command, its servers and all that they waited for", "ns", _USAGE),
        Column("system", "i64", "CPU time in the kernel of the same", "ns", _USAGE),
        Column("tool", "i64", "CPU time of the tool, start and end included", "ns", _USAGE),
        Column("memory", "i64", "largest resident set of any process of the command and its servers", "bytes", _USAGE),
        Column("metric", "f64", "what the workload says of itself; null if it says nothing", "", "output of the command", optional=True),
        Column("events", "i64", "events that the tool captured; null if it does not say", "count", "output of the tool", optional=True),
        Column("lost", "i64", "events that the tool says it lost; null if it does not say", "count", "output of the tool", optional=True),
        Column("bytes", "i64", "what the tool left on disk; null without a tool", "bytes", "output of the tool", optional=True),
        Column(
            "outside",
            "f64",
            "share of the CPU time of the machine that went to processes that do not belong to the run",
            "",
            "/proc/stat, /proc/PID/stat",
        ),
        Column("steal", "f64", "share of the CPU time of the machine that its host took", "", "/proc/stat"),
        Column("load", "f64", "load average of the last minute before the run", "", "/proc/loadavg"),
        _RUN,
        Column("block", "i32", "number of the block in its study: one workload, every treatment once", "", "plan"),
        Column("repetition", "i32", "number of the block among those of its workload; below 0: warm-up", "", "plan"),
        Column("status", "i32", "exit status of the command; below 0: the signal that ended it", "", _USAGE),
        Column("attempt", "i16", "how often the block had been run before, and found disturbed", "count", "runner"),
        Column("position", "i16", "place of the run in its block, from 0", "", "plan"),
        Column("replica", "i8", "1 for the second run of the baseline in a block, which is the control (A/A)", "", "plan"),
        Column("disturbed", "i8", "1 if outside load was above the limit in this run or another one of its block", "", "noise gate"),
        Column("end", "i8", "how the run ended", "", "runner", {0: "completed", 1: "failed", 2: "time limit", 3: "tool failed"}),
        Column("workload", "text", "name of the workload", "", "study file"),
        Column("treatment", "text", "name of the treatment", "", "study file"),
        Column("message", "text", "what went wrong; empty if nothing did", "", "runner"),
    ),
)

CALLS = Table(
    name="calls",
    version="1.0",
    doc="One row per run and system call: what the tool counted of it, and what a workload that knows its calls says itself.",
    origin="study",
    columns=(
        _START,
        Column("count", "i64", "calls", "count", "output of the tool"),
        Column("errors", "i64", "calls that returned an error; null if the tool does not say", "count", "output of the tool", optional=True),
        Column("time", "i64", "sum of their durations; null if the tool does not say", "ns", "output of the tool", optional=True),
        Column(
            "bytes", "i64", "sum of what they returned, of calls that return bytes; null if unknown", "bytes", "output of the tool", optional=True
        ),
        _RUN,
        Column("truth", "i8", "1 for what the workload knows of itself, 0 for what the tool reported", "", "runner"),
        Column("syscall", "text", "name of the system call", "", "output of the tool"),
    ),
)
