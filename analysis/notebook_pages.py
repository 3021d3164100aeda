"""Notebooks: finding them, making one for a trace, running it without a browser, and its page."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape as html
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ringtape.analysis.page import STYLE
from ringtape.schemas.errors import RingtapeError, UsageError

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = Path(__file__).parent.parent / "notebooks"
LIMIT = 600
"""Seconds that a cell may take: a large trace is read cell by cell."""
PARAMETERS = "parameters"
"""Tag of the cell that holds what a notebook is about."""
CODE = """
body{max-width:56rem}
.note,.how{max-width:44rem}p,ul,ol{max-width:44rem}h1{font-size:1.7rem;line-height:1.2}h2{font-size:1.2rem}
code{font-size:.86em;background:#f2f2f2;padding:.05em .25em;border-radius:3px;overflow-wrap:anywhere}
.code{border-left:3px solid #ccd;margin:.8rem 0;padding:0 0 0 .7rem;overflow-x:auto;font-size:.82rem;line-height:1.4}
.code pre{margin:0}.code code{background:none;padding:0}
summary{color:#888;font-size:.75rem;cursor:pointer}
.error{color:#a00;white-space:pre-wrap}
iframe{max-width:100%}
blockquote{margin:.8rem 0;padding:.1rem 0 .1rem .8rem;border-left:3px solid #d90;color:#333}
table{max-width:100%}
"""


@dataclass(frozen=True)
class Notebook:
    """A notebook of ringtape: its number, its name, and where it lies."""

    number: str
    name: str
    path: Path

    @property
    def title(self) -> str:
        """First heading."""
        for cell in json.loads(self.path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                return str("".join(cell["source"]).splitlines()[0].lstrip("# "))
        return self.name


def notebooks() -> list[Notebook]:
    """Return all notebooks, by number."""
    found = []
    for path in sorted(FOLDER.glob("[0-9][0-9]-*.ipynb")):
        number, _, name = path.stem.partition("-")
        found.append(Notebook(number, name, path))
    return found


def chosen(word: str) -> Notebook:
    """Return the notebook of that number or name, such as ``2``, ``02``, ``latency``.

    Raises
    ------
    UsageError
        If there is none, or several.
    """
    every = notebooks()
    exact = [one for one in every if word in (one.number, one.number.lstrip("0"), one.name, one.path.stem, one.path.name)]
    found = exact or [one for one in every if one.name.startswith(word) or word in one.name.split("-")]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{one.number} {one.name}" for one in found or every)
    raise UsageError(f"{word!r} names {'several notebooks' if found else 'no notebook'}", f"they are: {names}")


def needs(*modules: str) -> None:
    """Refuse to go on where the packages of the notebooks are not installed."""
    from importlib.util import find_spec

    if missing := [module for module in modules if find_spec(module) is None]:
        raise RingtapeError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed", "install the extra: pip install 'ringtape[notebooks]'"
        )


def parameters(notebook: Notebook) -> list[str]:
    """Return the names of a notebook's parameters."""
    import nbformat

    return _parameters(nbformat.read(notebook.path, as_version=4))


def _cell(node: NotebookNode) -> Any:
    return next(cell for cell in node.cells if PARAMETERS in cell.metadata.get("tags", ()))


def _parameters(node: NotebookNode) -> list[str]:
    return re.findall(r"^([A-Za-z_]\w*) *=", _cell(node).source, re.MULTILINE)


def made_for(notebook: Notebook, values: Mapping[str, Any]) -> NotebookNode:
    """Return a notebook with other parameters.

    Parameters
    ----------
    notebook : Notebook
        Which.
    values : mapping
        Values of names that its cell of parameters sets: text, numbers, lists of them.

    Returns
    -------
    NotebookNode
        A copy without outputs.

    Raises
    ------
    UsageError
        If it has no parameter of such a name.
    """
    import nbformat

    node: NotebookNode = nbformat.read(notebook.path, as_version=4)
    cell = _cell(node)
    lines = cell.source.splitlines()
    for key, value in values.items():
        at = next((place for place, line in enumerate(lines) if re.match(rf"{re.escape(key)} *=", line)), None)
        if at is None:
            raise UsageError(f"notebook {notebook.number} has no parameter {key!r}", f"its parameters are {', '.join(_parameters(node))}")
        comment = re.search(r"  # .*$", lines[at])
        # Written as Python writes a value, which is never run as anything else, whatever a folder is called.
        lines[at] = f"{key} = {value!r}{comment[0] if comment else ''}"
    cell.source = "\n".join(lines)
    return node


async def executed(node: NotebookNode, folder: Path) -> NotebookNode:
    """Run a notebook in a folder, and return it with its outputs.

    Parameters
    ----------
    node : NotebookNode
        What is run.
    folder : Path
        In which folder its code runs.

    Raises
    ------
    RingtapeError
        If a cell fails, or the packages of the notebooks are not installed.
    """
    needs("nbclient", "ipykernel")
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from traitlets.config import Config

    with TemporaryDirectory(prefix="ringtape-notebook-") as sockets:
        # Sockets in a private folder: over TCP another user of the machine could reach for them.
        where = {"transport": "ipc", "ip": f"{sockets}/kernel"}
        config = Config({"KernelManager": where, "AsyncKernelManager": where})
        client = NotebookClient(node, kernel_name="python3", timeout=LIMIT, resources={"metadata": {"path": str(folder)}}, config=config)
        try:
            await client.async_execute()
        except CellExecutionError as error:
            raise RingtapeError(f"a cell of the notebook failed: {error.ename}: {error.evalue}", "run it in JupyterLab to look at it") from None
        except DeadKernelError:
            raise RingtapeError("the notebook's kernel ended", "is there enough memory? `ringtape info` tells the trace's size") from None
    return node


def run(node: NotebookNode, folder: Path) -> NotebookNode:
    """Run a notebook as `executed` does, and wait for it."""
    import asyncio

    return asyncio.run(executed(node, folder))


def page(node: NotebookNode, title: str) -> str:
    """Return a notebook that was run as one page of HTML that needs nothing from elsewhere."""
    needs("nbconvert")
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    formatter = HtmlFormatter(cssclass="code")
    body: list[str] = []
    for cell in node.cells:
        if cell.cell_type == "markdown":
            body.append(_prose(cell.source))
            continue
        # An essay first: whoever wants to know how a number came about opens the code above it.
        body.append(f"<details><summary>code</summary>{highlight(cell.source, PythonLexer(), formatter)}</details>")
        body += [_output(output) for output in cell.outputs]
    style = STYLE + CODE + formatter.get_style_defs(".code")
    head = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{style}</style></head>"
    )
    return head + "<body><main>" + "\n".join(body) + "</main></body></html>\n"


def _prose(markdown: str) -> str:
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    return re.sub(r'<a class="anchor-link"[^>]*>.*?</a>', "", str(markdown2html_mistune(markdown)))


def _output(output: Any) -> str:
    from nbconvert.filters.ansi import strip_ansi

    if output.output_type == "stream":
        return f"<pre>{html(output.text)}</pre>"
    if output.output_type == "error":
        return f'<pre class="error">{html(strip_ansi(chr(10).join(output.traceback)))}</pre>'
    data = output.data
    if "text/markdown" in data:
        return _prose(data["text/markdown"])
    if "text/html" in data:
        return str(data["text/html"])
    if "image/png" in data:
        return f'<figure><img alt="" src="data:image/png;base64,{data["image/png"]}"></figure>'
    return f"<pre>{html(data.get('text/plain', ''))}</pre>"


def words_of(node: NotebookNode) -> str:
    """Return what a notebook that was run says, as plain text: what people read, without code and without pixels."""
    said: list[str] = []
    for cell in node.cells:
        if cell.cell_type == "markdown":
            said.append(cell.source)
            continue
        for output in cell.outputs:
            text = output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")
            said.append("\n".join(line.rstrip() for line in text.splitlines()))
    return "\n\n".join(said) + "\n"


def write(text: str, path: Path) -> None:
    """Write a file that is there wholly or not at all.

    Raises
    ------
    RingtapeError
        If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise RingtapeError(f"{path}: {os.strerror(error.errno or 0).lower()}", "name a file in a folder that you may write to") from None
