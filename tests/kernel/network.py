"""Programs that talk over sockets and tell what they did, and the rows that a recording has of them."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ringtape.schemas.tables.sockets import STATES, TABLE
from tests.kernel.recording import Trace

PROGRAM = Path(__file__).parent / "programs" / "network.py"
KINDS = {name: number for number, name in TABLE.column("kind").values.items()}
TABLES = "syscalls,paths,processes,sockets,transfers"
NETWORK = ("--tables", TABLES)
STATE = {name: number for number, name in STATES.items()}
SEND, RECEIVE = 0, 1


def words(*arguments: object) -> list[str]:
    """Return the command line of the program."""
    return [sys.executable, "-I", str(PROGRAM), *map(str, arguments)]


def said(output: bytes) -> Any:
    """Return what the program said last."""
    return json.loads(output.splitlines()[-1])


class Talker:
    """The program, running on its own."""

    def __init__(self, *arguments: object, prefix: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen([*prefix, *words(*arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def hear(self) -> Any:
        """Return the next thing that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the program ended with {self.process.wait()}"
        return json.loads(line)

    def tell(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def talker(*arguments: object, prefix: Sequence[str] = ()) -> Iterator[Talker]:
    """Run the program; it is ended with the block."""
    one = Talker(*arguments, prefix=prefix)
    try:
        yield one
    finally:
        one.process.kill()
        with one.process:
            pass


def lives(trace: Trace) -> dict[int, list[dict[str, Any]]]:
    """Return the rows of the table sockets by socket, in their order."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in trace.rows("sockets"):
        found.setdefault(row["socket"], []).append(row)
    return found


def path(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the states that a socket went through."""
    changes = [row for row in rows if row["kind"] == KINDS["state"]]
    assert all(before["state"] == after["old"] for before, after in itertools.pairwise(changes)), "a change of state is missing"
    return [STATES[change["state"]] for change in changes]


def sent(row: Mapping[str, Any]) -> int:
    """Payload sent, each byte once."""
    return int(row["bytes_sent"] - row["bytes_retrans"])


def received(row: Mapping[str, Any]) -> int:
    """Payload received."""
    return int(row["bytes_received"] - row["fin"])


def address(row: Mapping[str, Any], end: str) -> str:
    """Return an address as text."""
    high, low = row[f"{end}_high"], row[f"{end}_low"]
    if row["family"] == 2:
        return str(ipaddress.IPv4Address(low))
    return str(ipaddress.IPv6Address((high % 2**64) << 64 | low % 2**64))


def moved(trace: Trace, socket: int, direction: int) -> int:
    """Return the bytes that were sent or received on a socket according to the table transfers."""
    rows = trace.rows("transfers")
    return sum(row["result"] for row in rows if row["socket"] == socket and row["direction"] == direction and row["result"] > 0)
