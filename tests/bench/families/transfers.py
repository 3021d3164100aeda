"""Transfers: requests and answers on one connection over loopback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.families import Family
from tests.bench.workshop import Workshop


def _requests(shop: Workshop, size: int) -> Sequence[str | Path]:
    return [shop.program("loopback"), "requests", str(size)]


FAMILY = Family(
    name="transfers (requests over loopback)",
    table="transfers",
    record=("--tables", "transfers"),
    tracepoints=("sock_send_length", "sock_recv_length"),
    perf=("sock:sock_send_length", "sock:sock_recv_length"),
    workload=_requests,
    size=100_000,
)
