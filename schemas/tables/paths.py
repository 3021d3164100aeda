"""String arguments of system calls."""

from ringtape.schemas.columns import ABI, CPU, PID, TID, Column, seq, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="paths",
    version="1.2",
    doc="One row per path, socket address, batch of addresses or pair of descriptors that a call was given or returned; (tid, ts) names the call.",
    ring_size=32 << 20,
    needs=("syscalls",),
    columns=(
        ts("when the call was entered, as in syscalls.ts"),
        seq(),
        PID,
        TID,
        Column("nr", "i32", "system call number, to be read with abi", "", "sys_enter: id"),
        CPU,
        ABI,
        Column("arg", "i8", "index of the argument that points at the string"),
        Column(
            "kind", "i8", "what the bytes are", "", "system call table", {0: "path", 1: "sockaddr", 2: "two descriptors", 3: "addresses of messages"}
        ),
        Column(
            "cut",
            "i8",
            "1 if the string had 8191 bytes (twice what the kernel accepts) or more; 8191 are kept;"
            " kind 3: if there were more than 64 messages, or an address of more than 28 bytes",
        ),
        Column(
            "value",
            "bytes",
            "the bytes, without the ending NUL of a path; descriptors have 4 bytes each;"
            " kind 3: of each message of sendmmsg and recvmmsg the length of its address (4 bytes; 0: none) and its first 28 bytes",
            "",
            "bpf_probe_read_user",
        ),
    ),
)
