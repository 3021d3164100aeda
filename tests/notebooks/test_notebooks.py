"""Every notebook runs on the recording that it was written on and says what it said; it also runs on others."""

import asyncio
import os
import re
from pathlib import Path

import nbformat
import pytest

from ringtape import datasets
from ringtape.analysis.notebook_pages import PARAMETERS, executed, made_for, notebooks, page, parameters, run, words_of

ROOT = Path(__file__).parents[2]
EXPECTED = Path(__file__).parent / "expected"
NAMES = [one.path.stem for one in notebooks()]


def settled(text):
    """Without what is of the machine: where the checkout lies."""
    return text.replace(str(ROOT.resolve()), "...")


def run_all(nodes, folder):
    """Run notebooks two at a time, as each waits for its kernel's imports."""

    async def gathered():
        free = asyncio.Semaphore(2)

        async def one(node):
            async with free:
                return await executed(node, folder)

        return await asyncio.gather(*map(one, nodes))

    return asyncio.run(gathered())


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Every notebook, run as it is stored."""
    nodes = run_all([made_for(one, {}) for one in notebooks()], tmp_path_factory.mktemp("run"))
    return {one.path.stem: node for one, node in zip(notebooks(), nodes, strict=True)}


def test_each_is_stored_without_what_it_printed():
    assert len({one.number for one in notebooks()}) == len({one.name for one in notebooks()}) == len(NAMES)
    for one in notebooks():
        node = nbformat.read(one.path, as_version=4)
        nbformat.validate(node)
        assert [cell for cell in node.cells if cell.get("outputs") or cell.get("execution_count")] == [], one.path
        assert sum(PARAMETERS in cell.metadata.get("tags", ()) for cell in node.cells) == 1, one.path
        assert node.cells[0].cell_type == "markdown"
        assert node.cells[0].source.startswith("# ")


def test_only_the_public_library_is_used():
    for one in notebooks():
        code = "\n".join(cell.source for cell in nbformat.read(one.path, as_version=4).cells if cell.cell_type == "code")
        imported = set(re.findall(r"^ *(?:from|import) +([\w.]+)", code, re.MULTILINE))
        assert all(re.match(r"(ringtape|polars|numpy|json|pathlib|tempfile|subprocess|shutil|sys)\b", module) for module in imported), one.path
        assert not re.search(r"\b_[a-z]\w*\(|\._[a-z]", code), f"{one.path} calls what is private"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_says_what_it_said_when_it_was_written(ran, name):
    expected = EXPECTED / f"{name}.txt"
    said = settled(words_of(ran[name]))
    if os.environ.get("RINGTAPE_REDRAW"):
        expected.write_text(said, encoding="utf-8")
    assert said == expected.read_text(encoding="utf-8"), f"RINGTAPE_REDRAW=1 writes {expected} anew: read what changed"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_pictures_and_no_cell_that_complains(ran, name):
    outputs = [output for cell in ran[name].cells for output in cell.get("outputs", ())]
    assert any("<figure>" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert [output for output in outputs if output.output_type in ("stream", "error")] == [], "warnings and prints are no part of an essay"


@pytest.mark.parametrize("name", NAMES)
def test_its_page_needs_nothing_from_elsewhere(ran, name):
    text = page(ran[name], "a <title>")
    assert "<title>a &lt;title&gt;</title>" in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "<script" not in text


def others():
    """Each notebook: all are about a trace."""
    assert all("TRACE" in parameters(one) for one in notebooks())
    return NAMES


def values(notebook, path):
    """What the verb gives a notebook for a trace."""
    return {"TRACE": str(path), **({"OTHER": None} if "OTHER" in parameters(notebook) else {})}


@pytest.mark.parametrize("dataset", ["loss"])
def test_notebooks_run_on_a_recording_that_they_were_not_written_about(dataset, tmp_path):
    nodes = [made_for(one, values(one, datasets.path(dataset))) for one in notebooks() if one.path.stem in others()]
    for done in run_all(nodes, tmp_path):
        assert [output for cell in done.cells for output in cell.get("outputs", ()) if output.output_type != "display_data"] == []


@pytest.mark.soak
@pytest.mark.parametrize("dataset", [name for name in datasets.names() if name not in ("buffer", "older")] + ["buffer/before-1", "older/demo-1.0"])
@pytest.mark.parametrize("name", others())
def test_every_notebook_runs_on_every_recording(name, dataset, tmp_path):
    one = next(one for one in notebooks() if one.path.stem == name)
    done = run(made_for(one, values(one, datasets.path(dataset))), tmp_path)
    assert [output for cell in done.cells for output in cell.get("outputs", ()) if output.output_type != "display_data"] == []
