"""Open a notebook on a trace in JupyterLab, or run it to a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

EPILOG = """\
Examples:
  ringtape notebook                                          # which there are
  ringtape notebook run.trace 02                             # a copy for that trace, opened in JupyterLab
  ringtape notebook run.trace latency --execute --html latency.html
  ringtape notebook 09 --set TRACE='a-*.trace' --set OTHER='b-*.trace'

Without a trace the notebook is about the recording of the repository that it was written on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.usage = "ringtape notebook [options] [TRACE] [NOTEBOOK]"
    parser.add_argument("words", nargs="*", metavar="TRACE NOTEBOOK", help="the trace folder, and the notebook's number or name")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another parameter of the notebook (repeatable)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the copy that is made (default: NOTEBOOK-TRACE.ipynb, here)")
    parser.add_argument("--execute", action="store_true", help="run it without a browser, and keep it with its outputs, or its page (--html)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="with --execute: write one page that needs nothing else, and no copy")
    parser.add_argument("--no-browser", action="store_true", help="start JupyterLab without a browser, and print its address")


def run(args: argparse.Namespace) -> int:
    """Make it, and run or open it."""
    from ringtape.analysis import notebook_pages as pages
    from ringtape.schemas.errors import UsageError

    if args.html and not args.execute:
        raise UsageError("--html without --execute", "add --execute: the page shows what the notebook said when it ran")
    if len(args.words) > 2:
        raise UsageError(f"{len(args.words)} arguments were given", "name one trace and one notebook")
    if not args.words:
        for one in pages.notebooks():
            print(f"{one.number}  {one.name:<12}  {one.title}")
        return 0
    pages.needs("nbformat")
    notebook = pages.chosen(args.words[-1])
    values: dict[str, Any] = dict(_value(text) for text in args.set)
    if len(args.words) == 2:
        values["TRACE"] = str(_trace(args.words[0]))
        # The other side of a comparison is the default's own, and not one of this trace.
        if "OTHER" in pages.parameters(notebook):
            values.setdefault("OTHER", None)
    node = pages.made_for(notebook, values)
    if args.execute:
        done = pages.run(node, Path.cwd())
        if args.html:
            pages.write(pages.page(done, notebook.title), args.html)
            print(args.html)
            return 0
        node = done
    target = args.output or _free(Path(f"{notebook.path.stem}-{Path(args.words[0]).stem}.ipynb" if len(args.words) == 2 else notebook.path.name))
    if target.exists():
        raise UsageError(f"{target} exists already", "name another with --output, or remove it")
    _write(node, target)
    print(target)
    return 0 if args.execute else _lab(target, browser=not args.no_browser)


def _value(text: str) -> tuple[str, Any]:
    import json

    from ringtape.schemas.errors import UsageError

    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(f"--set {text!r} sets nothing", "write NAME=VALUE, such as --set TOP=20")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _trace(text: str) -> Path:
    from ringtape.analysis.runs import open_trace

    return open_trace(text).path.absolute()


def _free(path: Path) -> Path:
    """Return the path, numbered if it is taken: a copy that somebody has worked on is never written over."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found


def _write(node: Any, path: Path) -> None:
    import nbformat

    from ringtape.analysis.notebook_pages import write

    write(nbformat.writes(node), path)


def _lab(path: Path, *, browser: bool) -> int:
    """Become JupyterLab, with the copy opened."""
    import os
    from urllib.parse import quote

    from ringtape.analysis.notebook_pages import needs

    needs("jupyterlab", "ipykernel")
    words = [sys.executable, "-m", "jupyterlab", str(path)]
    # The address that is printed opens the notebook, and nothing is asked of other machines: neither news nor whether there is a newer JupyterLab.
    words += [f"--LabApp.default_url=/lab/tree/{quote(path.name)}", "--LabApp.news_url=None"]
    words += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    if not browser:
        words.append("--no-browser")
    if os.geteuid() == 0:
        # JupyterLab refuses to run as root without it; whoever records as root may well read as root.
        words.append("--allow-root")
    sys.stdout.flush()
    os.execv(sys.executable, words)
