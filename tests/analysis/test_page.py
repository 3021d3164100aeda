"""The report as a page: in a real browser, on a phone and on a desktop, and what hostile names may not do there."""

import re

import pytest

import ringtape
from ringtape.cli import main
from tests.analysis.browser import DESKTOP, PHONE, opened
from tests.factory import T0, make

DEMO, FAMILIES = "datasets/demo.trace", "datasets/families.trace"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "families.html"
    assert main(["report", FAMILIES, "--html", str(file)]) == 0
    return file


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_report_opens_without_a_message_or_a_request_and_never_scrolls_sideways(page, size):
    with opened(page, size) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert shown.locator("section").count() > 20
        assert shown.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert shown.evaluate("[...document.images].every(image => image.alt.length > 0)")
        assert shown.evaluate("[...document.querySelectorAll('nav a')].every(link => document.querySelector(link.getAttribute('href')))")


def test_tables_sort_by_the_value_of_numbers_and_back(page):
    with opened(page, DESKTOP) as shown:
        table = shown.locator("#latency table")
        place = table.locator("th").all_inner_texts().index("max")

        def column():
            return table.evaluate("(table, place) => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[place].dataset.v))", place)

        before = column()
        head = table.locator("th").nth(place)
        head.click()
        assert column() == sorted(before, reverse=True)
        assert column() != before
        head.press("Enter")
        assert column() == sorted(before)
        assert head.get_attribute("aria-sort") == "ascending"


def test_the_report_prints_on_paper(page, tmp_path):
    with opened(page, DESKTOP) as shown:
        data = shown.pdf()
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) > 5


def test_every_section_says_how_its_numbers_are_made_again(page):
    text = page.read_text()
    sections = re.findall(r'<section id="(\w+)">', text)
    assert len(sections) > 20
    calls = dict(re.findall(r"from ringtape\.analysis\.analyses\.(\w+) import \w+; (.*?)</code>", text))
    assert set(calls) == set(sections)
    assert len(calls["latency"]) > 0
    assert f"ringtape runq-latency {FAMILIES}" in text
    from ringtape.analysis.analyses.latency import latency

    again = calls["latency"].replace("&#x27;", "'")
    assert eval(again, {"latency": latency, "ringtape": ringtape}).equals(latency(ringtape.open(FAMILIES)))


def test_names_of_a_trace_run_nothing(tmp_path):
    name = b"</script><img src=x onerror=alert(1)>"
    folder = make(
        tmp_path / "<b>&amp;.trace",
        syscalls=[{"ts": T0 + 1, "nr": 257, "pid": 7, "dur": 5, "ret": 3}],
        paths=[{"ts": T0 + 1, "nr": 257, "pid": 7, "arg": 1, "value": name}],
        processes=[{"ts": T0, "pid": 7, "kind": 1, "comm": b"<script>x</s"}],
    )
    file = tmp_path / "page.html"
    assert main(["report", str(folder), "--html", str(file)]) == 0
    assert file.read_text().count("<script>") == 1
    with opened(file, PHONE) as shown:
        assert shown.locator("img[src=x]").count() == 0
        assert shown.locator("script").count() == 1
