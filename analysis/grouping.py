"""By what calls can be told apart: system call, process, thread, command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import polars as pl

from ringtape.analysis.naming import command_number, syscall_label
from ringtape.analysis.registry import Result
from ringtape.analysis.trace import Trace
from ringtape.schemas.abi import syscalls as calls
from ringtape.schemas.columns import ABI
from ringtape.schemas.errors import UsageError

By = Literal["syscall", "process", "thread", "command"]

GROUPS = (
    Result(
        "syscall",
        pl.String,
        "name of the call; `name@abi` where it was not made in the machine's own ABI; `unknown (-1)` for lost calls of which it is not known",
    ),
    Result("process", pl.Int32, "process number; null for calls that were lost, of which the ledger knows no process"),
    Result("thread", pl.Int32, "thread number; null for calls that were lost"),
    Result("command", pl.String, "command name in force when the call was entered; null for calls that were lost"),
)
_KEYS: dict[str, tuple[str, ...]] = {"syscall": ("nr", "abi"), "process": ("pid",), "thread": ("tid",), "command": ("command",)}


@dataclass(frozen=True)
class Grouping:
    """A choice of group columns, and the stored columns that stand for them while rows are counted."""

    by: tuple[By, ...]
    native: str
    trace: Trace

    @classmethod
    def of(cls, trace: Trace, by: By | Sequence[By]) -> Grouping:
        """Check the argument ``by`` of an analysis.

        Raises
        ------
        UsageError
            If it names something that calls are not told apart by, nothing, or something twice.
        """
        chosen = tuple(by.split(",")) if isinstance(by, str) else tuple(by)
        for name in chosen:
            if name not in _KEYS:
                raise UsageError(f"calls cannot be told apart by {name!r}", f"by is one or more of {', '.join(_KEYS)}")
        if not chosen:
            raise UsageError("by names nothing to tell calls apart by", f"by is one or more of {', '.join(_KEYS)}")
        twice = [name for name in chosen if chosen.count(name) > 1]
        if twice:
            raise UsageError(f"by names {twice[0]!r} twice", "name each of them once")
        if "command" in chosen:
            trace.require("processes")
        return cls(cast(tuple[By, ...], chosen), trace.header.abi, trace)

    @property
    def keys(self) -> list[str]:
        """Columns to group rows by."""
        return [key for name in self.by for key in _KEYS[name]]

    @property
    def located(self) -> bool:
        """Whether the loss ledger, which knows system calls only, can tell the groups apart."""
        return self.by == ("syscall",)

    def is_call(self, name: str) -> pl.Expr:
        """Return the expression that is true for calls of that name in any ABI.

        Raises
        ------
        UsageError
            If no ABI has a call of that name.
        """
        numbers = [(code, nr) for code, abi in ABI.values.items() for nr, known in calls.names(abi).items() if known == name]
        if not numbers:
            calls.number(self.native, name)
        return pl.any_horizontal((pl.col("abi") == code) & (pl.col("nr") == nr) for code, nr in numbers)

    def rows(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Return the frame with the columns to group by."""
        return frame.with_columns(command_number(self.trace.commands)) if "command" in self.by else frame

    def named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return a frame of groups with names in place of numbers, the group columns first."""
        rest = [column for column in frame.columns if column not in self.keys]
        names = self.trace.commands().names if "command" in self.by else []
        text = pl.Series(["?", *names], dtype=pl.String)
        make: dict[str, Callable[[], pl.Expr]] = {
            "syscall": lambda: syscall_label(self.native),
            "process": lambda: pl.col("pid").alias("process"),
            "thread": lambda: pl.col("tid").alias("thread"),
            "command": lambda: pl.col("command").replace_strict(list(range(-1, len(names))), text, return_dtype=pl.String),
        }
        return frame.select(*(make[name]() for name in self.by), *rest)
