"""What the recordings of the repository are: for the verb, and for their README."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringtape import datasets
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.units import format_size

LICENCE = "Apache-2.0, as all of the repository"
BEGIN, END = "<!-- written by `ringtape datasets --markdown` -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Dataset:
    """A recording of the repository, of one run or several."""

    name: str
    traces: tuple[TraceFolder, ...]
    script: Path | None

    @property
    def what(self) -> str:
        """What its script says that it does."""
        if self.script is None:
            return "A recording of `demo.sh` in the first version of the format, which stays and must open for ever."
        comments: list[str] = []
        for line in self.script.read_text(encoding="utf-8").splitlines()[1:]:
            if not line.startswith("# ") or re.match(r"# [a-z]+: ", line):
                break
            comments.append(line[2:])
        return " ".join(comments)

    @property
    def options(self) -> str:
        """What it was recorded with beside the default."""
        found = re.search(r"^# options: (.*)$", self.script.read_text(encoding="utf-8"), re.MULTILINE) if self.script else None
        return found[1] if found else ""

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for trace in self.traces for file in Path(trace.path).rglob("*") if file.is_file())

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each table that has any, of all runs together."""
        counted: dict[str, int] = {}
        for trace in self.traces:
            for name in trace.tables:
                counted[name] = counted.get(name, 0) + sum(part.rows for part in trace.parts(name))
        return {name: rows for name, rows in counted.items() if rows}

    @property
    def versions(self) -> dict[str, str]:
        """Version of each table's schema."""
        return dict(sorted(self.traces[0].header.tables.items()))

    @property
    def lost(self) -> int:
        """Records that were lost."""
        return sum(sum(trace.footer.lost.values()) for trace in self.traces if trace.footer)

    @property
    def sha256(self) -> str:
        """Hash of all its files, as `find . -type f | sort | xargs sha256sum | sha256sum` in its folder gives it, bytes sorted."""
        root = Path(self.traces[0].path) if len(self.traces) == 1 else Path(self.traces[0].path).parent
        whole = hashlib.sha256()
        for file in sorted((file for file in root.rglob("*") if file.is_file()), key=lambda file: f"./{file.relative_to(root)}".encode()):
            whole.update(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  ./{file.relative_to(root)}\n".encode())
        return whole.hexdigest()


def every() -> list[Dataset]:
    """Return all recordings, by name.

    Raises
    ------
    RingtapeError
        If ringtape was installed without its repository, or one of them is damaged.
    """
    found = []
    for name in datasets.names():
        script = datasets.folder() / f"{name}.sh"
        found.append(Dataset(name, tuple(TraceFolder.open(path) for path in datasets.paths(name)), script if script.is_file() else None))
    return found


def recorded_sums(readme: str) -> dict[str, str]:
    """Return the hash that the README has of each recording."""
    sections = re.split(r"^### ", readme, flags=re.MULTILINE)[1:]
    return {section.partition("\n")[0].strip(): found[1] for section in sections if (found := re.search(r"`([0-9a-f]{64})`", section))}


def markdown(found: Sequence[Dataset]) -> str:
    """Return the README's part about the recordings."""
    return BEGIN + "\n" + "\n".join(line for one in found for line in _section(one)) + END


def _section(one: Dataset) -> Iterator[str]:
    header = one.traces[0].header
    runs = f" ({len(one.traces)} runs: {', '.join(Path(trace.path).stem for trace in one.traces)})" if len(one.traces) > 1 else ""
    tables = ", ".join(f"{name}@{one.versions[name]} {rows:,}" for name, rows in one.rows.items())
    how = (
        f"`{one.script.name}` under `ringtape record{f' {one.options}' if one.options else ''}`; `./run datasets {one.name}` records it anew"
        if one.script
        else "kept"
    )
    yield f"### {one.name}"
    yield ""
    yield one.what + runs
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| how | {how} |"
    host, created = header.host, header.created.replace("T", " ").replace("Z", " UTC")
    yield f"| when, where | {created}, {host['cpus']} CPUs ({host['cpu']}), Linux {host['kernel']} |"
    yield f"| with | ringtape {header.tools['ringtape']}, BCC {header.tools['bcc']}, format {header.version} |"
    yield f"| rows | {tables} |"
    yield f"| size, lost | {format_size(one.size)}, {one.lost:,} records lost |"
    yield f"| licence | {LICENCE} |"
    yield f"| SHA-256 | `{one.sha256}` |"
    yield ""


def written_anew(readme: str) -> str:
    """Return the README with its part about the recordings as they are now."""
    before, _, rest = readme.partition(BEGIN)
    return before + markdown(every()) + rest.partition(END)[2]


def main() -> None:
    """Write the README of the recordings anew: `./run datasets` does so after it recorded."""
    readme = datasets.folder() / "README.md"
    readme.write_text(written_anew(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
