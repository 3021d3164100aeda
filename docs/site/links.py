"""Which links of a folder of pages lead nowhere, and which parts of them would be fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "video": "src", "audio": "src", "object": "data"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := values.get(name)))
        if tag == "a" and (href := values.get("href")):
            self.links.append((href, False))
        # rel="canonical" and its like name a page; only style sheets, icons and what is preloaded are fetched.
        elif (name := FETCHED.get(tag)) and (value := values.get(name)):
            self.links.append(
                (value, tag != "link" or (values.get("rel") or "") in ("stylesheet", "icon", "preload", "shortcut icon", "modulepreload"))
            )


@cache
def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Check every link of every page in a folder.

    Parameters
    ----------
    folder : Path
        Folder of the site.

    Yields
    ------
    tuple of (Path, str, str)
        The page, the link, and what is wrong: no such file, no such place in it, or something that the page would fetch from elsewhere.
        Links to other sites are not followed.
    """
    for path in sorted(folder.rglob("*.html")):
        for link, fetched in _read(path).links:
            parts = urlsplit(link)
            if parts.scheme in {"data", "mailto"}:
                continue
            if parts.scheme or parts.netloc:
                if fetched:
                    yield path, link, "fetched from elsewhere"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield path, link, "no such file"
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in _read(target).anchors:
                yield path, link, "no such place in it"
