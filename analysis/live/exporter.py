"""Serves the metrics of a recording over HTTP, on the loopback interface unless another address is named."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from ringtape.analysis.live.follower import Follower
from ringtape.analysis.live.metrics import OPEN_METRICS, TABLES, TEXT, Metrics
from ringtape.analysis.live.watcher import being_made
from ringtape.analysis.summary import lost_records
from ringtape.schemas.errors import RingtapeError, UsageError

POLL = 0.5
WHOLE = 5_000_000
"""Calls of a trace up to which counters begin with the recording; of a longer one with the exporter."""


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``9750``, ``:9750``, ``127.0.0.1:9750`` or ``[::1]:9750``.

    >>> parse_address(":9750"), parse_address("[::1]:80")
    (('127.0.0.1', 9750), ('::1', 80))

    Raises
    ------
    UsageError
        If it is no address. Names are not looked up: which interface is meant must be plain.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    hint = "write a port, or an address with one, such as 9750, 127.0.0.1:9750 or [::1]:9750"
    if not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise UsageError(f"--prometheus {text!r} has no port", hint)
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)), int(port)
    except ValueError:
        raise UsageError(f"--prometheus {text!r} is no address", hint) from None


class Exporter:
    """A recording and the server that tells of it.

    Parameters
    ----------
    path : Path
        The trace folder.
    address : tuple of (str, int)
        Where it listens; port 0 for one that is free.

    Raises
    ------
    RingtapeError
        If the address cannot be listened on, or the folder is no trace.
    """

    def __init__(self, path: Path, address: tuple[str, int]) -> None:
        folder = being_made(path)
        rows = sum(part.rows for part in folder.manifest.parts if part.table == "syscalls")
        last = max((part.max_ts for part in folder.manifest.parts), default=0)
        self._follower = Follower(path, TABLES, None if rows <= WHOLE else last + 1)
        self._metrics = Metrics(folder.header.abi)
        self._lock = threading.Lock()
        self.look()
        exporter = self

        class Handler(_Handler):
            told: ClassVar[Exporter] = exporter

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            daemon_threads = True

        try:
            self._server = Server(address, Handler)
        except OSError as error:
            raise RingtapeError(f"{address[0]} port {address[1]}: {(error.strerror or str(error)).lower()}", "name another port") from None
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host, port = self._server.server_address[:2]
        return f"http://{f'[{host!s}]' if ':' in str(host) else host!s}:{port}/metrics"

    def look(self) -> None:
        """Count what has come."""
        batches = self._follower.poll()
        with self._lock:
            self._metrics.feed(batches)
            if self._follower.ended:
                self._metrics.settle()

    @property
    def ended(self) -> bool:
        """Whether the recording has."""
        return self._follower.ended

    def exposition(self, open_metrics: bool) -> bytes:
        """Return what a scrape gets."""
        with self._lock:
            return self._metrics.exposition(lost_records(self._follower.folder), not self.ended, open_metrics)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    told: ClassVar[Exporter]
    timeout = 10
    server_version = "ringtape"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] not in ("/metrics", "/"):
            self.send_error(HTTPStatus.NOT_FOUND, "metrics are at /metrics")
            return
        open_metrics = "application/openmetrics-text" in self.headers.get("Accept", "")
        body = self.told.exposition(open_metrics)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", OPEN_METRICS if open_metrics else TEXT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Say nothing of scrapes."""


def serve(path: str | Path, address: str) -> int:
    """Serve the metrics of a trace until its recording has ended; return the exit status."""
    exporter = Exporter(Path(path), parse_address(address))
    print(f"ringtape: metrics at {exporter.url}", file=sys.stderr)
    try:
        while not exporter.ended:
            time.sleep(POLL)
            exporter.look()
    finally:
        exporter.close()
    return 0
