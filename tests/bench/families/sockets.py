"""Connections: one request on each, over loopback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.families import Family
from tests.bench.workshop import Workshop


def _connections(shop: Workshop, size: int) -> Sequence[str | Path]:
    return [shop.program("loopback"), "connections", str(size)]


FAMILY = Family(
    name="sockets (short connections over loopback)",
    table="sockets",
    record=("--tables", "sockets"),
    tracepoints=(
        "inet_sock_set_state",
        "tcp_retransmit_skb",
        "tcp_retransmit_synack",
        "tcp_receive_reset",
        "tcp_send_reset",
        "udp_fail_queue_rcv_skb",
    ),
    perf=("sock:inet_sock_set_state", "tcp:tcp_retransmit_skb", "tcp:tcp_retransmit_synack", "tcp:tcp_receive_reset", "tcp:tcp_send_reset"),
    workload=_connections,
    size=20_000,
)
