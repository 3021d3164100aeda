"""A real browser for tests: pages are opened from files, and nothing may leave the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


def needed() -> None:
    """Skip where there is no browser; where CI says that everything is installed, fail."""
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("RINGTAPE_REQUIRE_BPF") == "1" else pytest.skip)("chromium is not installed")


@contextmanager
def opened(file: Path, size: dict[str, int], site: Path | None = None) -> Iterator[Any]:
    """Open a file in a page of that size; a message on the console, an error, or a request for anything else fails when it is closed.

    What lies in the folder ``site`` may be asked for as well.
    """
    allowed = ("data:", f"{site.as_uri()}/") if site else ("data:",)
    needed()
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            page = browser.new_page(viewport=size)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on(
                "request", lambda request: said.append(request.url) if request.url != file.as_uri() and not request.url.startswith(allowed) else None
            )
            page.goto(file.as_uri())
            yield page
            keep(page, f"{file.stem}-{size['width']}.png")
        finally:
            browser.close()
    assert said == []


def keep(page: Any, name: str) -> None:
    """Keep a screenshot where `RINGTAPE_ARTEFACTS` says, for people to look at."""
    if folder := os.environ.get("RINGTAPE_ARTEFACTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / name))
