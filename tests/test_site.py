"""The documentation site: it builds without a warning, holds everything, no link of it is broken, and it asks nobody for anything."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ringtape.analysis import registry
from ringtape.cli import verbs
from ringtape.schemas.table import tables
from tests.analysis.browser import DESKTOP, PHONE, opened

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "docs" / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, SCRIPTS / "build.py", folder, "--without-notebooks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", "Sphinx warns where a page is not what it was meant to be"
    return folder


@pytest.fixture(scope="module")
def broken():
    spec = importlib.util.spec_from_file_location("links", SCRIPTS / "links.py")
    links = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(links)
    return links.broken


def test_every_verb_analysis_table_study_and_guide_has_its_place(site):
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert {f"verbs/{name}.html" for name in verbs()} <= pages
    assert {f"analyses/{name}.html" for name in registry.names()} <= pages
    assert {f"studies/{path.stem}.html" for path in (ROOT / "datasets" / "studies").glob("*.study")} <= pages
    assert {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= pages
    reference = (site / "docs" / "tables.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in reference for name in tables())


def test_a_page_says_what_the_program_says(site):
    page = (site / "verbs" / "latency.html").read_text(encoding="utf-8")
    assert "usage: ringtape latency" in page
    page = (site / "analyses" / "latency.html").read_text(encoding="utf-8")
    assert "Hyndman and Fan" in page, "the docstring"
    assert "the ceil(0.99 n)-th smallest of n durations" in page, "the declaration of a column"


def test_no_link_is_broken(site, broken):
    assert list(broken(site)) == []


def test_a_broken_link_is_found(tmp_path, broken):
    (tmp_path / "b.html").write_text('<p id="here">')
    (tmp_path / "a.html").write_text(
        """<a href="b.html#here">good</a><a href="https://elsewhere.example/">not followed</a><link rel="canonical" href="https://it.example/">
        <img src="data:,"><a href="b.html#there">no such place</a><a href="c.html">no such file</a><script src="//cdn.example/x.js"></script>"""
    )
    assert [(page.name, link, reason) for page, link, reason in broken(tmp_path)] == [
        ("a.html", "b.html#there", "no such place in it"),
        ("a.html", "c.html", "no such file"),
        ("a.html", "//cdn.example/x.js", "fetched from elsewhere"),
    ]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_browser_shows_it_and_asks_nobody_else_for_anything(site, size):
    for name in ("index", "analyses/latency", "docs/tables"):
        with opened(site / f"{name}.html", size, site) as page:
            assert page.locator("h1").first.is_visible()
            # Tables and code scroll by themselves; the page must not.
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name
