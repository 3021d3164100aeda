"""Pictures are held: those of the shipped recordings are compared with the ones that were looked at.

``RINGTAPE_REDRAW=1 .venv/bin/python -m pytest tests/analysis/test_pictures.py`` draws them anew: look at each before it is committed.
"""

import io
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ringtape
from ringtape.analysis.analyses.latency import pictures
from ringtape.analysis.comparison.compare import compare
from ringtape.analysis.comparison.shift import shift
from ringtape.analysis.pictures import draw
from ringtape.analysis.plots.comparison import forest, shift_plot
from ringtape.analysis.plots.output import encoded, fit
from ringtape.analysis.plots.style import SIZE
from ringtape.cli import main
from tests.factory import T0, make

HELD = Path(__file__).parent / "pictures"
FAMILIES = "datasets/families.trace"
NAMES = [
    *("latency-percentiles", "latency-ecdf", "latency-ccdf", "latency-heat-map", "latency-tail", "latency-modes", "runq-latency"),
    *("mix", "mix-over-time", "transitions", "ledger", "ledger-time", "timeline"),
]
SMALL = 56
"""Dots per inch of the pictures that are held."""
ALIKE = 6.0
"""Root mean square of the differences, of 255: two renderings of the same picture differ by less, a line that is missing by more."""


@cache
def drawn():
    return {picture.name: picture.figure for each in draw(ringtape.open(FAMILIES)).values() for picture in each}


def rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=SMALL, metadata={"Software": None})
    return buffer.getvalue()


def held(name, figure):
    data = rendered(figure)
    if os.environ.get("RINGTAPE_REDRAW") == "1":
        HELD.mkdir(exist_ok=True)
        (HELD / f"{name}.png").write_bytes(data)
    return apart(name, data)


def apart(name, data):
    ours, theirs = (np.asarray(Image.open(io.BytesIO(each)).convert("RGB"), np.float64) for each in (data, (HELD / f"{name}.png").read_bytes()))
    assert ours.shape == theirs.shape
    return float(np.sqrt(((ours - theirs) ** 2).mean()))


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_as_it_was_when_it_was_looked_at(name):
    assert held(name, drawn()[name]) < ALIKE


def test_a_line_that_is_missing_is_seen():
    figure = next(picture.figure for picture in pictures(ringtape.open(FAMILIES)) if picture.name == "latency-ecdf")
    figure.axes[0].lines[0].set_visible(False)
    figure.axes[0].lines[1].set_visible(False)
    assert apart("latency-ecdf", rendered(figure)) > ALIKE


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sides")

    def run(name, factor, noise):
        calls = [{"ts": T0 + 1000 * at, "nr": at % 3, "pid": 7, "dur": int((200 + at % 40 * factor * 9) * (1 + 0.02 * noise))} for at in range(600)]
        return ringtape.open(make(folder / name, syscalls=calls))

    return [[run(f"{side}{number}", factor, number) for number in range(5)] for side, factor in (("b", 1), ("o", 2))]


def test_comparisons_are_as_they_were_when_they_were_looked_at(sides):
    assert held("forest", forest(compare(*sides), "Other against base")) < ALIKE
    assert held("shift", shift_plot(shift(*sides, "read"), "Latency of read: other against base, by percentile")) < ALIKE


@pytest.mark.parametrize(("width", "inches"), [("column", 3.35), ("page", SIZE[0]), ("slide", 9.84)])
def test_pictures_fit_where_they_are_read_and_their_letters_can_be_read(width, inches):
    from matplotlib.text import Text

    for picture in draw(ringtape.open("datasets/demo.trace"))["latency"]:
        fit(picture.figure, width)
        assert picture.figure.get_size_inches()[0] == pytest.approx(inches)
        assert min(text.get_fontsize() for text in picture.figure.findobj(Text) if text.get_text()) >= 6


@pytest.mark.parametrize("few", [False, True])
def test_nothing_that_is_written_is_cut_off_in_a_column(few, tmp_path):
    """Titles, names of axes and legends of every picture, also of a recording with a single thread and two calls."""
    calls = [{"ts": T0 + 1000 * at, "nr": at % 2, "pid": 7, "dur": 200 + at % 9 * 30} for at in range(40)]
    trace = ringtape.open(make(tmp_path / "few.trace", syscalls=calls) if few else FAMILIES)
    seen = set()
    for picture in (picture for each in draw(trace).values() for picture in each):
        fit(picture.figure, "column")
        picture.figure.savefig(io.BytesIO(), dpi=picture.figure.dpi)
        written = [(text.get_text(), text) for text in picture.figure.texts]
        for axes in picture.figure.axes:
            written += [(text.get_text(), text) for text in (axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label)]
            written += [("the legend", axes.get_legend())] if axes.get_legend() is not None else []
        written += [("the legend", legend) for legend in picture.figure.legends]
        for what, artist in written:
            left, low, right, high = artist.get_window_extent().extents if what else (0, 0, 0, 0)
            assert min(left, low) >= -1, (picture.name, what)
            assert right <= picture.figure.bbox.width + 1, (picture.name, what)
            assert high <= picture.figure.bbox.height + 1, (picture.name, what)
        seen.add(picture.name)
    assert seen >= {"latency-windows", "latency-modes", "transitions", "mix"}


def test_the_same_picture_gives_the_same_bytes_in_every_form():
    figure = drawn()["mix"]
    for form, begins in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        data = encoded(figure, form)
        assert data.startswith(begins)
        assert data == encoded(figure, form)
    assert b"<dc:date>" not in encoded(figure, "svg")


def test_the_report_writes_pictures_in_the_forms_and_for_the_place_asked_for(tmp_path, capsys):
    assert main(["report", "datasets/demo.trace", "--pictures", str(tmp_path), "--forms", "svg,png", "--width", "column"]) == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg", ".png"}
    assert main(["report", "datasets/demo.trace", "--pictures", str(tmp_path), "--forms", "gif"]) == 2
