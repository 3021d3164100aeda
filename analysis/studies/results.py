"""The folder that a study leaves behind: its file, its runs, what each tool counted, and where it was run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ringtape.analysis.studies.declaration import Study
from ringtape.schemas.arrow import arrow_schema, write_options
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.studies import CALLS, RUNS
from ringtape.schemas.table import Table

FILE, ENVIRONMENT, TRACES = "study.toml", "environment.json", "traces"
COMPLETED, FAILED, TIME_LIMIT, TOOL_FAILED = sorted(RUNS.column("end").values)
"""The codes of ``end`` in the table of runs."""


class Results:
    """What a study left behind.

    Parameters
    ----------
    path : Path
        The folder. ``study.toml`` in it is the study, as it was run.
    """

    def __init__(self, path: Path) -> None:
        if not (path / FILE).is_file():
            raise RingtapeError(f"{path} is not the result of a study: it has no {FILE}", "name the folder that `ringtape study run` wrote")
        self.path = path

    @cached_property
    def study(self) -> Study:
        """The study, read and checked again."""
        from ringtape.analysis.studies.study_file import read

        return read(self.path / FILE)

    @cached_property
    def runs(self) -> pl.DataFrame:
        """All runs, also disturbed ones and warm-ups: the columns of ``schemas/studies.py``, sorted by ``run``."""
        return self._read(RUNS).sort("run")

    @cached_property
    def calls(self) -> pl.DataFrame:
        """What the tools, and workloads that know the truth, say of each system call, sorted by ``run``."""
        return self._read(CALLS).sort("run", "truth", "syscall")

    @cached_property
    def environment(self) -> Sequence[Mapping[str, Any]]:
        """The machine before and after each session in which the study was run."""
        try:
            said = json.loads((self.path / ENVIRONMENT).read_bytes())
        except (OSError, ValueError) as error:
            raise RingtapeError(f"{self.path / ENVIRONMENT}: {error}", "run the study again") from None
        if not isinstance(said, list) or not all(isinstance(one, dict) for one in said):
            raise RingtapeError(f"{self.path / ENVIRONMENT} is not a list of sessions", "run the study again")
        return said

    def measured(self) -> pl.DataFrame:
        """Return the runs that count: completed, no warm-up, of the last attempt at their block, and with no failed run in the block.

        A block that stayed disturbed after the last attempt counts, and is marked in the column ``disturbed``.
        """
        return self._measured

    @cached_property
    def _measured(self) -> pl.DataFrame:
        runs = self.runs.filter(pl.col("repetition") >= 0)
        last = runs.filter(pl.col("attempt") == pl.col("attempt").max().over("block"))
        return last.filter((pl.col("end") == COMPLETED).all().over("block", "treatment"))

    def _read(self, table: Table) -> pl.DataFrame:
        path = self.path / f"{table.name}.parquet"
        try:
            file = pq.ParquetFile(path, page_checksum_verification=True)
            if not file.schema_arrow.equals(arrow_schema(table), check_metadata=False):
                raise RingtapeError(
                    f"{path} does not have the columns of {table.schema_id}", "it was changed, or written by another version of ringtape"
                )
            frame = pl.from_arrow(file.read())
        except FileNotFoundError:
            raise RingtapeError(f"{path} is missing", "nothing has been run to its end yet: `ringtape study run` goes on where it stopped") from None
        except (OSError, pa.ArrowException) as error:
            raise RingtapeError(f"{path}: {error}", "the file is damaged") from None
        assert isinstance(frame, pl.DataFrame)
        return frame


def write(path: Path, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of a study at once: after a crash there is the old file or the new one."""
    new = path.with_suffix(".new")
    with open(new, "wb") as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=arrow_schema(table)), file, **write_options(table))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
