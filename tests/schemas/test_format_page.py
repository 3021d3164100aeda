"""docs/format.md, followed by a program that knows nothing of ringtape's own reader."""

import hashlib
import json
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ringtape.schemas.manifest import Footer, Header, Part
from tests import factory

PAGE = (Path(__file__).parent.parent.parent / "docs" / "format.md").read_text(encoding="utf-8")


def checked(folder):
    """Check a trace as the page's section "How to check a trace" says; return header, footer, rows and seq by table and CPU."""
    previous, header, footer, standing = "", None, None, {}
    for raw in (folder / "manifest.jsonl").read_bytes().split(b"\n")[:-1]:
        text = raw.decode("ascii")
        line = json.loads(text)
        bare = text.replace(f'"sum":"{line["sum"]}",', "", 1)
        assert hashlib.sha256((previous + bare).encode()).hexdigest()[:16] == line["sum"]
        previous = line["sum"]
        if line["type"] == "header":
            header = line
        elif line["type"] == "footer":
            footer = line
        else:
            for name in line["replaces"]:
                del standing[name]
            standing[line["file"]] = line
    seqs, rows = defaultdict(set), defaultdict(int)
    for name, part in standing.items():
        data = (folder / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part["bytes"], part["sha256"])
        content = pq.read_table(folder / name, page_checksum_verification=True)
        times = content["ts"].to_pylist()
        assert times == sorted(times)
        assert (len(times), times[0], times[-1]) == (part["rows"], part["min_ts"], part["max_ts"])
        assert content.schema.metadata[b"table"].decode() == f"{part['table']}@{header['tables'][part['table']]}"
        rows[part["table"]] += len(times)
        if "seq" in content.column_names:
            for cpu, seq in zip(content["cpu"].to_pylist(), content["seq"].to_pylist(), strict=True):
                seqs[part["table"], cpu].add(seq)
    return header, footer, rows, seqs


def test_a_trace_with_losses_is_checked_by_the_page_alone(tmp_path):
    calls = [{"nr": 0, "cpu": index % 2, "dur": 100, "lost": index in (3, 4, 7)} for index in range(20)]
    folder = factory.make(tmp_path / "x.trace", parts=3, syscalls=calls)
    header, footer, rows, seqs = checked(folder)
    assert header["format"] == "ringtape-trace"
    assert rows["syscalls"] == 17 == footer["rows"]["syscalls"]
    for cpu, attempted in footer["attempted"]["syscalls"].items():
        present = seqs["syscalls", int(cpu)]
        assert present <= set(range(attempted))
    missing = sum(attempted - len(seqs["syscalls", int(cpu)]) for cpu, attempted in footer["attempted"]["syscalls"].items())
    assert missing == footer["lost"]["syscalls"] == 3


@pytest.mark.parametrize("line", [Header, Part, Footer], ids=lambda line: line.type)
def test_the_page_names_every_member_of_every_line(line):
    section = PAGE.split(f"| {line.type} | type | meaning |")[1].split("\n\n")[0]
    for field in fields(line):
        assert f"`{field.name}`" in section, field.name
