"""What a table declaration is, and how the declarations are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Literal

from ringtape.schemas.columns import C_TYPES, SIZES, Column
from ringtape.schemas.errors import UsageError


@dataclass(frozen=True)
class Table:
    """One table of a trace, declared once.

    Parameters
    ----------
    name : str
        Name of the table, of its folder in the trace and of its probe file.
    version : str
        ``major.minor``: a new column at the end is a minor step, anything else a major one.
    doc : str
        One sentence: one row per what.
    columns : tuple of Column
        Fixed columns widest first, so that the C record has no holes; then the ``bytes`` columns.
    origin : {"ring", "recorder", "study"}
        Whether the kernel's ring, the recorder itself or the runner of studies writes the rows.
    default : bool
        Whether a recording holds the table unless told otherwise.
    ring_size : int
        Bytes of ring memory for all CPUs together unless ``--ring-size`` says otherwise.
    needs : tuple of str
        Tables that have to be recorded with it, because its records are made by their probes, or mean little without theirs.
    interrupts : bool
        Whether a probe that fills it may interrupt another one that does. Its records then lie in BPF ring buffers, where
        that is safe, and not in slots.
    cost : str
        What recording it costs the recorded program, for the help: measured by `./run bench`.
    lasting : bool
        Whether a row holds from its time on, so that who asks about a window needs those before it as well.
    """

    name: str
    version: str
    doc: str
    columns: tuple[Column, ...]
    origin: Literal["ring", "recorder", "study"] = "ring"
    default: bool = True
    ring_size: int = 0
    needs: tuple[str, ...] = ()
    interrupts: bool = False
    cost: str = ""
    lasting: bool = False

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"table {self.name} declares a column twice")
        if names[0] != "ts":
            raise ValueError(f"table {self.name} must begin with ts, by which it is sorted")
        if self.origin == "ring":
            sizes = [SIZES[column.type] for column in self.fixed if column.type != "comm"]
            if sizes != sorted(sizes, reverse=True):
                raise ValueError(f"table {self.name}: order the fixed columns from wide to narrow, comm first among them")

    @property
    def schema_id(self) -> str:
        """``name@version``, as written into every part."""
        return f"{self.name}@{self.version}"

    @property
    def fixed(self) -> tuple[Column, ...]:
        """Columns in the fixed part of a record."""
        return tuple(column for column in self.columns if not column.in_tail)

    @property
    def tail(self) -> tuple[Column, ...]:
        """Columns whose values lie behind the fixed part, one after the other."""
        return tuple(column for column in self.columns if column.in_tail)

    def column(self, name: str) -> Column:
        """Return the column of that name."""
        return next(column for column in self.columns if column.name == name)

    @property
    def in_ring_buffer(self) -> bool:
        """Whether records lie in BPF ring buffers: those of varying size, and those made in interrupts. The others lie in slots."""
        return bool(self.tail) or self.interrupts

    @property
    def record_size(self) -> int:
        """Bytes of the fixed part of a record: a multiple of 8."""
        used = sum(SIZES[column.type] for column in self.fixed)
        if self.in_ring_buffer:
            used += 8
            used += -used % 4 + 4 * len(self.tail)
        return used + -used % 8

    def c_struct(self) -> str:
        """Return the C struct that the probe fills.

        Records in ring buffers begin with a cookie by which the drain finds them; their fixed part ends with the length of
        each ``bytes`` column, and the values follow without padding.
        """
        lines = [f"struct {self.name}_record {{"]
        lines += [f"  {kind} {name};" for kind, name in self._c_members()]
        return "\n".join([*lines, "};"])

    def _c_members(self) -> Iterator[tuple[str, str]]:
        if self.in_ring_buffer:
            yield "u64", "cookie"
        for column in self.fixed:
            yield ("char", f"{column.name}[16]") if column.type == "comm" else (C_TYPES[column.type], column.name)
        if self.in_ring_buffer:
            # The lengths are 32-bit: bring them to their alignment before, the whole to a multiple of 8 after.
            used = sum(SIZES[column.type] for column in self.fixed) + 8
            if used % 4:
                yield "u8", f"reserved0[{-used % 4}]"
            used += -used % 4
            for column in self.tail:
                yield "u32", f"{column.name}_len"
                used += 4
            if used % 8:
                yield "u8", f"reserved1[{-used % 8}]"
        else:
            used = sum(SIZES[column.type] for column in self.fixed)
            if used % 8:
                yield "u8", f"reserved[{-used % 8}]"


@cache
def tables() -> Mapping[str, Table]:
    """Return every declared table by name; a table is declared by a file in ``schemas/tables``."""
    from ringtape.schemas import tables as package

    found = [import_module(f"{package.__name__}.{module.name}").TABLE for module in iter_modules(package.__path__)]
    return {table.name: table for table in sorted(found, key=lambda table: table.name)}


def table(name: str) -> Table:
    """Return one declared table.

    Raises
    ------
    UsageError
        If no table has that name.
    """
    try:
        return tables()[name]
    except KeyError:
        raise UsageError(f"unknown table {name!r}", f"the tables are {', '.join(tables())}") from None
