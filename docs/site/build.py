"""Builds the documentation site: guides, verbs, analyses, library, tables, studies, notebooks.

The pages of the repository are taken as they are; what is declared elsewhere (a verb's flags, an analysis' columns, a study's results,
a notebook's findings) is asked of the program itself. `./run docs` runs this; nothing that it makes is committed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).resolve().parent
sys.path.insert(0, str(SITE))

from links import broken  # noqa: E402 - the module beside this one

RINGTAPE = Path(sys.executable).with_name("ringtape")
WIDTH = "100"
"""Columns of the help of verbs: what a page of the site shows without scrolling."""
LIBRARY = {
    "trace": ("Traces", ("ringtape.open", "ringtape.Trace", "ringtape.Runs", "ringtape.RingtapeError"), ("ringtape.analysis.summary",)),
    "datasets": ("Datasets", (), ("ringtape.datasets",)),
    "comparison": ("Comparing runs", (), ("ringtape.analysis.comparison.compare", "ringtape.analysis.comparison.shift")),
    "histograms": ("Histograms", (), ("ringtape.analysis.histograms",)),
    "studies": ("Studies", (), ("ringtape.analysis.studies.results", "ringtape.analysis.studies.slowdown")),
    "live": ("Following a recording", (), ("ringtape.analysis.live.follower", "ringtape.analysis.live.state", "ringtape.analysis.live.snapshot")),
}


def main() -> int:
    """Build the site; 0 if it was built without a warning and no link of it is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, nargs="?", default=ROOT / "build" / "site", help="folder of the site (default: build/site)")
    parser.add_argument("--without-notebooks", action="store_true", help="do not run the notebooks: their page lists them only")
    args = parser.parse_args()
    os.environ.update(COLUMNS=WIDTH, NO_COLOR="1")
    pages = args.output.with_name(args.output.name + "-pages")
    shutil.rmtree(pages, ignore_errors=True)
    shutil.rmtree(args.output, ignore_errors=True)
    guides = _copy_guides(pages)
    sections = [
        ("Guides", guides),
        ("Notebooks", ["notebooks/index"]),
        ("Verbs", list(_verbs(pages))),
        ("Analyses", list(_analyses(pages))),
        ("Library", [*_library(pages), *_plots(pages)]),
        ("Studies", list(_studies(pages))),
        ("Project", ["datasets/README", "CONTRIBUTING", "CHANGELOG"]),
    ]
    made = _notebooks(pages, run=not args.without_notebooks)
    _index(pages, sections)
    status = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "2", "-c", str(SITE), "-b", "html", str(pages), str(args.output)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "SPHINX_EPOCH": "1"},
        check=False,
    ).returncode
    if status:
        return status
    for page in made:
        shutil.copy(page, args.output / "notebooks" / page.name)
    wrong = list(broken(args.output))
    for page, link, reason in wrong:
        print(f"{page.relative_to(args.output)}: {link}: {reason}", file=sys.stderr)
    count = sum(1 for _ in args.output.rglob("*.html"))
    print(f"{args.output}: {count} pages, {len(wrong)} broken links")
    return 1 if wrong else 0


# ---- what the repository holds as text


def _copy_guides(pages: Path) -> list[str]:
    """Lay the repository's pages out as they lie there, so that their links hold."""
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "datasets/README.md"))]:
        _write(pages / path.relative_to(ROOT), _linked(path.read_text(encoding="utf-8"), path.relative_to(ROOT).parent))
    for pattern in ("datasets/studies/*.toml", "datasets/studies/*/*.png", "datasets/*.sh", "docs/*.png", "docs/*.svg", "docs/*.service"):
        for path in ROOT.glob(pattern):
            (pages / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, pages / path.relative_to(ROOT))
    order = [
        "live",
        "flight",
        "lossless",
        "budget",
        "latency",
        "stacks",
        "block",
        "studies",
        "notebooks",
        "importing",
        "export",
        "handover",
        "format",
        "tables",
    ]
    names = sorted((path.stem for path in (ROOT / "docs").glob("*.md")), key=lambda name: (order.index(name) if name in order else -1, name))
    return [f"docs/{name}" for name in names]


def _linked(text: str, folder: Path) -> str:
    """Turn links to folders of the repository, which the site does not hold, into links to the pages about them."""
    above = "../" * len(folder.parts)

    def page(match: re.Match[str]) -> str:
        target = match[1]
        if target.startswith(("#", "http:", "https:")):
            return match[0]
        path = Path(os.path.normpath(folder / target.partition("#")[0]))
        if path.suffix == ".study":
            return f"]({above}studies/{path.stem}.md)"
        if path == Path("datasets/studies"):
            return f"]({above}datasets/README.md)"
        if path.parts[:1] == ("notebooks",):
            return f"]({above}notebooks/index.md)"
        if path.suffix == ".trace" or path == Path("datasets"):
            return f"]({above}datasets/README.md)"
        return match[0]

    return re.sub(r"\]\(([^)\s]+)\)", page, text)


# ---- what the program says of itself


def _verbs(pages: Path) -> Iterator[str]:
    from ringtape.analysis.registry import names
    from ringtape.cli import verbs

    for name, verb in verbs().items():
        parser, _ = verb.parser()
        lines = [f"# ringtape {name}", "", f"{_escaped(verb.summary)}.", ""]
        if name.replace("-", "_") in names():
            lines += [f"Its columns, and the same as a function: [{name}](../analyses/{name.replace('-', '_')}.md).", ""]
        lines += ["```text", parser.format_help().rstrip(), "```", ""]
        for below in parser._actions:
            for sub, one in below.choices.items() if isinstance(below, argparse._SubParsersAction) else ():
                lines += [f"## ringtape {name} {sub}", "", "```text", one.format_help().rstrip(), "```", ""]
        _write(pages / "verbs" / f"{name}.md", "\n".join(lines))
        yield f"verbs/{name}"


def _analyses(pages: Path) -> Iterator[str]:
    from ringtape.analysis.registry import every

    for name, found in every().items():
        verb = name.replace("_", "-")
        lines = [f"# {verb}", "", f"{_escaped(found.summary)}.", ""]
        lines += [
            f"Tables: {', '.join(f'[{table}](../docs/tables.md#{table})' for table in found.tables)}. Verb: [ringtape {verb}](../verbs/{verb}.md).",
            "",
        ]
        lines += ["```{eval-rst}", f".. autofunction:: ringtape.analysis.analyses.{name}.{name}", "```", ""]
        lines += ["## Columns of the result", "", "| column | type | unit | meaning |", "|---|---|---|---|"]
        for column in (*found.groups, *found.columns):
            lines.append(f"| `{column.name}` | {column.dtype} | {column.unit or ' '} | {_escaped(column.doc)} |")
        _write(pages / "analyses" / f"{name}.md", "\n".join(lines) + "\n")
        yield f"analyses/{name}"


def _library(pages: Path) -> Iterator[str]:
    from importlib.util import find_spec

    for name, (title, objects, modules) in LIBRARY.items():
        lines = [f"# {title}", ""]
        for one in objects:
            kind = "autofunction" if one.rpartition(".")[2][0].islower() else "autoclass"
            lines += ["```{eval-rst}", f".. {kind}:: {one}", *(["   :members:"] if kind == "autoclass" else []), "```", ""]
        present = []
        for one in modules:
            with contextlib.suppress(ModuleNotFoundError):
                if find_spec(one):
                    present.append(one)
        for one in present:
            lines += ["```{eval-rst}", f".. automodule:: {one}", "   :members:", "```", ""]
        if objects or present:
            _write(pages / "library" / f"{name}.md", "\n".join(lines))
            yield f"library/{name}"


def _plots(pages: Path) -> Iterator[str]:
    modules = sorted(path.stem for path in (ROOT / "analysis" / "plots").glob("[a-z]*.py"))
    lines = ["# Pictures", "", "Each takes the frame of an analysis and returns a matplotlib figure.", ""]
    for name in modules:
        lines += [f"## {name}", "", "```{eval-rst}", f".. automodule:: ringtape.analysis.plots.{name}", "   :members:", "```", ""]
    _write(pages / "library" / "plots.md", "\n".join(lines))
    yield "library/plots"


def _studies(pages: Path) -> Iterator[str]:
    for folder in sorted((ROOT / "datasets" / "studies").glob("*.study")):
        # Run beside the page: the report names its pictures by the folder that it is given.
        words = ["--format", "markdown", "--pictures", folder.stem, "--output", f"{folder.stem}.md"]
        (pages / "studies").mkdir(exist_ok=True)
        done = subprocess.run(
            [RINGTAPE, "study", "report", folder, *words],
            cwd=pages / "studies",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{folder.name}: {done.stderr}")
        yield f"studies/{folder.stem}"


# ---- notebooks


@dataclass(frozen=True)
class Notebook:
    """A notebook of the repository: what it is called, and its opening words."""

    path: Path

    def opening(self) -> tuple[str, str]:
        """Return its title and first paragraph."""
        import nbformat

        first = next(cell for cell in nbformat.read(self.path, as_version=4).cells if cell.cell_type == "markdown")
        head, _, rest = first.source.strip().partition("\n")
        return head.lstrip("# "), rest.strip().partition("\n\n")[0]


def _notebooks(pages: Path, *, run: bool) -> list[Path]:
    found = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    made = pages.with_name(pages.name + "-notebooks")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    rendered = []
    if run:
        with ThreadPoolExecutor(2) as pool:
            rendered = list(pool.map(lambda path: _rendered(path, made), found))
    lines = [
        "# Notebooks",
        "",
        "Essays on recordings of this repository; `ringtape notebook TRACE NN` makes one on yours. How: [notebooks](../docs/notebooks.md).",
        "",
    ]
    for path in found:
        title, opening = Notebook(path).opening()
        # A page that Sphinx does not make is linked as HTML: it is copied beside this one after the build, and the link is checked there.
        name = f'<a href="{path.stem}.html">{title}</a>' if run else title
        lines += [f"## {path.stem[:2]}", "", f"**{name}**", "", opening, ""]
    _write(pages / "notebooks" / "index.md", "\n".join(lines))
    return rendered


def _rendered(path: Path, folder: Path) -> Path:
    page = folder / f"{path.stem}.html"
    done = subprocess.run([RINGTAPE, "notebook", path.stem[:2], "--execute", "--html", page], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{path.name}: {done.stderr}")
    return page


# ---- together


def _index(pages: Path, sections: list[tuple[str, list[str]]]) -> None:
    text = _linked((ROOT / "README.md").read_text(encoding="utf-8"), Path())
    for caption, names in sections:
        text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n:maxdepth: 1\n\n" + "\n".join(f"/{name}" for name in names) + "\n```\n"
    _write(pages / "index.md", text)


def _escaped(text: str) -> str:
    """Return text of the program's as Markdown that shows it."""
    return re.sub(r"([\\|*_<>\[\]{}])", r"\\\1", text.replace("\n", " "))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
