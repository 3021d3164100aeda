"""docs/handover.md, run; and every table of a trace in other readers."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest

import ringtape
from ringtape import cli
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.table import table as declared

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/handover.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def ran(page: str) -> list[tuple[str, str]]:
    """Run the blocks of a page one after the other; return what each printed beside what the page says."""
    names: dict[str, Any] = {}
    printed, found = "", []
    for kind, text in BLOCK.findall(page):
        if kind == "sh":
            assert cli.main(shlex.split(text)[1:]) == 0
        elif kind == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(text, names)
            printed = out.getvalue()
        elif kind == "pyspark":
            printed = ""
        elif printed:
            found.append((text, printed))
    return found


def test_every_block_prints_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.symlink(ROOT / "datasets", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    found = ran(PAGE.read_text())
    assert len(found) == 6
    for said, printed in found:
        assert printed == said


@pytest.mark.parametrize("name", ["demo", "families"])
def test_every_table_opens_in_duckdb_and_pandas_with_the_rows_and_values_of_the_trace(name: str) -> None:
    trace = ringtape.open(ROOT / f"datasets/{name}.trace")
    tables = [table for table in trace.tables if trace.rows(table)]
    assert "syscalls" in tables
    for table in tables:
        files = f"{trace.path}/{table}/*.parquet"
        ours = trace.scan(table).collect().sort(pl.all())
        numbers = [column for column, kind in ours.schema.items() if kind.is_integer()]
        sums = ours.select(pl.col(numbers).cast(pl.Int128).sum()).row(0)
        totals = ", ".join(f'sum("{column}"::hugeint)' for column in numbers)
        assert duckdb.sql(f"select count(*), {totals} from '{files}'").fetchall() == [(len(ours), *sums)]
        theirs = pd.read_parquet(trace.path / table)
        assert len(theirs) == len(ours)
        assert [int(theirs[column].astype(object).sum()) for column in numbers] == list(sums)
        texts = [column for column in ours.columns if column not in numbers]
        for column in texts:
            assert sorted(map(_bytes, theirs[column])) == sorted(map(_bytes, ours[column]))
        assert list(theirs.columns) == arrow_schema(declared(table)).names


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
