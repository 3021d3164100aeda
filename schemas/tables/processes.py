"""Process and thread life cycle."""

from ringtape.schemas.columns import CPU, PID, TID, Column, seq, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="processes",
    version="1.0",
    doc="One row per thread that exists at the start, and per fork, exec, rename and exit of a recorded thread.",
    ring_size=8 << 20,
    lasting=True,
    columns=(
        ts("when it happened"),
        Column("start", "i64", "when the thread was created; (tid, start) identifies a thread for ever", "ns", "task_struct.start_time"),
        Column("uid", "i64", "effective user", "", "task_struct.cred.euid"),
        Column("gid", "i64", "effective group", "", "task_struct.cred.egid"),
        Column("cgroup", "i64", "id of the cgroup in the version 2 hierarchy (inode of its folder)", "", "task_struct.cgroups.dfl_cgrp.kn.id"),
        Column("clone_flags", "i64", "flags of the clone that made the thread (fork rows)", "", "task_newtask: clone_flags"),
        Column("utime", "i64", "user CPU time of the thread (exit rows)", "ns", "task_struct.utime"),
        Column("stime", "i64", "system CPU time of the thread (exit rows)", "ns", "task_struct.stime"),
        Column("maxrss", "i64", "largest resident set of the process so far (exit rows)", "bytes", "signal_struct.maxrss"),
        Column("min_flt", "i64", "minor page faults of the thread (exit rows)", "count", "task_struct.min_flt"),
        Column("maj_flt", "i64", "major page faults of the thread (exit rows)", "count", "task_struct.maj_flt"),
        Column("nvcsw", "i64", "voluntary context switches of the thread (exit rows)", "count", "task_struct.nvcsw"),
        Column("nivcsw", "i64", "involuntary context switches of the thread (exit rows)", "count", "task_struct.nivcsw"),
        seq(),
        Column("comm", "comm", "command name after the event", "", "task_struct.comm"),
        PID,
        TID,
        Column("ppid", "i32", "process of the parent", "", "task_struct.real_parent.tgid"),
        Column("creator", "i32", "thread that called clone (fork rows), or thread number before exec (exec rows)"),
        Column("exit_code", "i32", "exit status 0 to 255 (exit rows)", "", "task_struct.exit_code >> 8"),
        Column("exit_signal", "i32", "signal that ended the thread, or 0 (exit rows)", "", "task_struct.exit_code & 127"),
        CPU,
        Column(
            "kind",
            "i8",
            "what happened",
            "",
            "tracepoint",
            {0: "existing", 1: "fork", 2: "exec", 3: "exit", 4: "rename"},
        ),
        Column("group_dead", "i8", "1 if the thread was the last of its process (exit rows)", "", "sched_process_exit: group_dead"),
        Column("cut", "i8", "1 if argv did not fit and was cut"),
        Column("file", "bytes", "file name given to exec (exec rows)", "", "linux_binprm.filename"),
        Column("argv", "bytes", "arguments as the kernel laid them out, each ended by a NUL (exec rows)", "", "mm_struct.arg_start"),
    ),
)
