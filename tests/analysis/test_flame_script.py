"""What a click and a search do in a flame graph, in a real browser."""

from xml.etree import ElementTree as ET

import pytest

import ringtape
from ringtape.analysis import flamegraph
from ringtape.analysis.stacks import stacks
from tests.analysis.browser import DESKTOP, opened
from tests.analysis.test_flame import CODE, PROFILE, SYMBOLS, stack
from tests.factory import T0, make

GROUP = "{http://www.w3.org/2000/svg}g"
HOURS = 10_000_000_000_000


READ = """() => ({
  said: document.getElementById("said").textContent,
  found: [...document.querySelectorAll(".box.found")].map(box => box.dataset.name),
  shown: Object.fromEntries([...document.querySelectorAll(".box")].filter(box => box.style.display !== "none").map(box => {
    const rect = box.querySelector("rect");
    return [box.dataset.name, [+rect.getAttribute("x"), +rect.getAttribute("width"), box.querySelector("text").textContent]];
  })),
})"""


@pytest.fixture
def clicked(tmp_path):
    """Return what is shown after each click, in a real browser."""
    # Hours off the CPU, of which one box of a hundredth of a percent holds two others, the second of them again two.
    times = [
        (HOURS, (0x400100,)),
        (400_000_003, (0x400210, 0x400201)),
        (299_999_999, (0x400220, 0x400201)),
        (300_000_001, (0x400230, 0x400221, 0x400201)),
    ]
    samples = [{"pid": 7, "ts": T0 + place, "kind": 1, "dur": time, "user": stack(*frames)} for place, (time, frames) in enumerate(times)]
    trace = ringtape.open(make(tmp_path / "t", header=PROFILE, samples=samples, mappings=(CODE,), symbols=SYMBOLS))
    file = tmp_path / "flame.svg"
    file.write_text(flamegraph.svg(trace, stacks(trace, "offcpu"), "offcpu", "x" * 500))

    def run(*clicks):
        told = []
        answer = [""]
        with opened(file, DESKTOP) as page:
            page.on("dialog", lambda dialog: dialog.accept(answer[0]))
            for click in clicks:
                if "search" in click:
                    answer[0] = click["search"]
                    page.locator("#search").dispatch_event("click")
                elif "reset" in click:
                    page.locator("#reset").dispatch_event("click")
                else:
                    page.evaluate("name => [...document.querySelectorAll('.box')].find(box => box.dataset.name === name)"
                                  ".dispatchEvent(new MouseEvent('click'))", click["name"])  # fmt: skip
                told.append(page.evaluate(READ))
        return told

    run.texts = [one.text or "" for one in ET.fromstring(file.read_text()).iter("{http://www.w3.org/2000/svg}text")]
    return run


def test_a_click_on_a_box_of_a_hundredth_of_a_percent_shows_everything_in_it(clicked):
    inside, outside = {"tool+0x1200", "tool+0x1210", "tool+0x1220", "tool+0x1230"}, "tool+0x1100"
    first, back = clicked({"name": "tool+0x1200"}, {"reset": True})
    assert set(first["shown"]) == {"?", *inside}
    whole = 1_000_000_003
    shown = {name: place[:2] for name, place in first["shown"].items()}
    assert shown["tool+0x1200"] == [0, 1200]
    assert shown["tool+0x1210"] == pytest.approx([0, 1200 * 400_000_003 / whole])
    assert shown["tool+0x1220"] == pytest.approx([1200 * 400_000_003 / whole, 1200 * 600_000_000 / whole])
    assert shown["tool+0x1230"][0] == pytest.approx(shown["tool+0x1220"][0])
    assert first["shown"]["tool+0x1200"][2] == "tool+0x1200"
    assert set(back["shown"]) == {*first["shown"], outside}


def test_a_search_marks_boxes_and_says_their_share_once(clicked):
    found, nothing, emptied = clicked({"search": "0x12"}, {"search": "no such"}, {"search": ""})
    assert set(found["found"]) == {"tool+0x1200", "tool+0x1210", "tool+0x1220", "tool+0x1230"}
    assert found["said"] == "0x12: 0.01 % in 4 boxes"
    assert nothing["found"] == []
    assert nothing["said"] == "no such: 0.00 % in 0 boxes"
    assert emptied["said"] == " "
    (half,) = clicked({"search": "tool"})
    assert half["said"].startswith("tool: 100.00 % in 5")


def test_a_long_title_ends_before_the_buttons(clicked):
    title = clicked.texts[0]
    assert "…: " in title
    assert len(title) * flamegraph.LETTER <= 1200 - flamegraph.BUTTONS
