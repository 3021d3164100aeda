"""Sends and receives."""

from ringtape.schemas.addresses import (
    FAMILY,
    LOCAL_HIGH,
    LOCAL_LOW,
    LOCAL_PORT,
    NETNS,
    PEER_HIGH,
    PEER_LOW,
    PEER_PORT,
    PROTOCOL,
    SOCKET,
)
from ringtape.schemas.columns import CPU, PID, TID, Column, seq, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="transfers",
    version="1.0",
    doc="One row per send or receive by a recorded thread on a socket of any family, failed ones included.",
    default=False,
    ring_size=64 << 20,
    needs=("processes",),
    cost="0.2 µs per send or receive",
    columns=(
        ts("when it ended"),
        SOCKET,
        NETNS,
        LOCAL_HIGH,
        LOCAL_LOW,
        PEER_HIGH,
        PEER_LOW,
        Column("call", "i64", "when the system call that it is part of was entered, as in syscalls.ts; 0: in none, or none that is recorded", "ns"),
        seq(),
        PID,
        TID,
        Column("result", "i32", "bytes, or the negative error", "", "sock_send_length, sock_recv_length: ret"),
        Column(
            "flags",
            "i32",
            "MSG_ flags of a receive: 0x2 (MSG_PEEK) leaves the bytes where they are, 0x2000 (MSG_ERRQUEUE) are no bytes of the peer; 0 for sends",
            "",
            "sock_recv_length: flags",
        ),
        LOCAL_PORT,
        PEER_PORT,
        PROTOCOL,
        CPU,
        FAMILY,
        Column(
            "type",
            "i8",
            "type of the socket",
            "",
            "sock.sk_type",
            {1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 6: "dccp", 10: "packet"},
        ),
        Column("direction", "i8", "which way", "", "tracepoint", {0: "send", 1: "receive"}),
    ),
)
