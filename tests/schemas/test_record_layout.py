"""The C struct that a probe fills and the dtype that the drain reads must be the same thing: a C compiler is the judge."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ringtape.schemas.columns import Column
from ringtape.schemas.layout import record_dtype
from ringtape.schemas.table import Table, tables

COMPILER = shutil.which("cc") or shutil.which("gcc")
RING_TABLES = [table for table in tables().values() if table.origin == "ring"]

PRELUDE = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
typedef int8_t s8; typedef int16_t s16; typedef int32_t s32; typedef int64_t s64;
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
"""


def compiled_layout(table: Table, folder: Path) -> tuple[int, dict[str, tuple[int, int]]]:
    """Return the size of the C struct, and offset and size of each member that the dtype names."""
    if COMPILER is None:
        pytest.fail("the tests need a C compiler: ./run test installs it as root")
    struct = f"{table.name}_record"
    names = record_dtype(table).names
    prints = "\n".join(f'printf("{name} %zu %zu\\n", offsetof(struct {struct}, {name}), sizeof(((struct {struct} *)0)->{name}));' for name in names)
    source = folder / "layout.c"
    source.write_text(f'{PRELUDE}{table.c_struct()}\nint main(void) {{\nprintf("%zu\\n", sizeof(struct {struct}));\n{prints}\nreturn 0; }}\n')
    subprocess.run([COMPILER, "-Wall", "-Werror", "-o", folder / "layout", source], check=True)
    first, *rest = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True).stdout.splitlines()
    members = {name: (int(offset), int(size)) for name, offset, size in (line.split() for line in rest)}
    return int(first), members


def numpy_layout(table: Table) -> tuple[int, dict[str, tuple[int, int]]]:
    dtype = record_dtype(table)
    return dtype.itemsize, {name: (dtype.fields[name][1], dtype.fields[name][0].itemsize) for name in dtype.names}


@pytest.mark.parametrize("table", RING_TABLES, ids=lambda table: table.name)
def test_numpy_sees_each_member_where_the_c_compiler_puts_it(table, tmp_path):
    assert numpy_layout(table) == compiled_layout(table, tmp_path)


SHAPES = {
    "one_byte_over": (Column("a", "i8", ""),),
    "short_then_byte": (Column("a", "i16", ""), Column("b", "i8", "")),
    "comm_in_the_middle": (Column("a", "i64", ""), Column("comm", "comm", ""), Column("b", "i32", ""), Column("c", "i16", "")),
    "tail_after_a_byte": (Column("a", "i32", ""), Column("b", "i8", ""), Column("value", "bytes", "")),
    "two_tails": (Column("comm", "comm", ""), Column("b", "i16", ""), Column("x", "bytes", ""), Column("y", "bytes", "")),
    "only_a_tail": (Column("value", "bytes", ""),),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_odd_shapes_agree_with_the_compiler_too(shape, tmp_path):
    table = Table(shape, "1.0", "One row per nothing.", (Column("ts", "i64", ""), *SHAPES[shape]))
    assert numpy_layout(table) == compiled_layout(table, tmp_path)


@pytest.mark.parametrize("table", RING_TABLES, ids=lambda table: table.name)
def test_records_are_a_multiple_of_8_bytes_as_the_rings_lay_them_out(table):
    assert record_dtype(table).itemsize % 8 == 0
    assert record_dtype(table).itemsize == table.record_size


@pytest.mark.parametrize("table", RING_TABLES, ids=lambda table: table.name)
def test_records_have_no_holes_except_at_their_end(table):
    fields = sorted((offset, dtype.itemsize) for dtype, offset, *_ in record_dtype(table).fields.values())
    used = sum(size for _, size in fields)
    assert record_dtype(table).itemsize - used < 12
