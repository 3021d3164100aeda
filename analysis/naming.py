"""What stored codes mean, as polars expressions that cost nothing where their column is not used."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import polars as pl

from ringtape.analysis.addresses import endpoint_text
from ringtape.analysis.in_force import CommandsInForce
from ringtape.schemas.abi import syscalls as calls
from ringtape.schemas.abi.errors import MAX_ERRNO, errnos
from ringtape.schemas.columns import ABI
from ringtape.schemas.escape import escape
from ringtape.schemas.table import Table

_NR_BITS = 32


@cache
def _call_names() -> pl.DataFrame:
    rows = [(code << _NR_BITS | nr, name) for code, abi in ABI.values.items() for nr, name in calls.names(abi).items()]
    return pl.DataFrame(rows, schema={"key": pl.Int64, "name": pl.String}, orient="row")


def syscall_name(nr: str = "nr", abi: str = "abi") -> pl.Expr:
    """Return the expression for the name of a call.

    Numbers without a name read ``syscall_<nr>``, negative ones, which a program may call, ``unknown (<nr>)``. Where there is no
    ABI, there is no call: null.
    """
    names = _call_names()
    key = pl.col(abi).cast(pl.Int64) * (1 << _NR_BITS) + pl.col(nr).cast(pl.Int64)
    known = key.replace_strict(names["key"], names["name"], default=None, return_dtype=pl.String)
    numbered = pl.concat_str(pl.lit("syscall_"), pl.col(nr))
    unknown = pl.concat_str(pl.lit("unknown ("), pl.col(nr), pl.lit(")"))
    name = pl.when(pl.col(nr) >= 0).then(pl.coalesce(known, numbered)).when(pl.col(abi) != 0).then(unknown)
    return name.alias("syscall")


def syscall_label(native: str) -> pl.Expr:
    """Return the expression for the name of a call, followed by ``@abi`` where that is not the machine's own."""
    code = calls.ABI_IDS.get(native, 0)
    foreign = pl.concat_str(syscall_name(), pl.lit("@"), meaning("abi", dict(ABI.values)))
    return pl.when(pl.col("abi") == code).then(syscall_name()).otherwise(foreign).alias("syscall")


def is_error(ret: str = "ret") -> pl.Expr:
    """Return the expression that is true where a return value is an error."""
    return pl.col(ret).is_between(-MAX_ERRNO, -1)


def errno_name(ret: str = "ret") -> pl.Expr:
    """Return the expression for the name of the error that a call returned; null where it did not fail."""
    names = {number: error.name for number, error in errnos().items()}
    known = (-pl.col(ret)).replace_strict(list(names), list(names.values()), default=None, return_dtype=pl.String)
    return pl.when(is_error(ret)).then(pl.coalesce(known, pl.concat_str(pl.lit("E"), -pl.col(ret)))).alias("errno")


def meaning(column: str, values: dict[int, str]) -> pl.Expr:
    """Return the expression for the meaning of a coded column; a code of a newer version reads ``<column>_<code>``."""
    known = pl.col(column).cast(pl.Int64).replace_strict(list(values), list(values.values()), default=None, return_dtype=pl.String)
    return pl.coalesce(known, pl.concat_str(pl.lit(f"{column}_"), pl.col(column)))


def comm_text(raw: bytes) -> str:
    r"""Return a kernel command name as printable text, without its ending NULs.

    >>> comm_text(b"cat\0\0")
    'cat'
    """
    return escape(raw.split(b"\0", 1)[0])


def decoded(frame: pl.LazyFrame, table: Table, native: str, commands: Callable[[], CommandsInForce]) -> pl.LazyFrame:
    """Return the frame with the meanings of its codes beside them."""
    del native  # names follow each row's own abi
    names = {column.name for column in table.columns}
    extra = [meaning(column.name, dict(column.values)).alias(f"{column.name}_name") for column in table.columns if column.values]
    if {"nr", "abi"} <= names:
        extra.append(syscall_name())
    if "ret" in names:
        # A call that did not return, or whose return value is a value of its own kind, still stores 0 or a success.
        extra.append(errno_name())
    if {"local_high", "peer_high"} <= names:
        extra += [endpoint_text("local"), endpoint_text("peer")]
    if "comm" in names:
        extra.append(pl.col("comm").map_batches(_texts, return_dtype=pl.String, is_elementwise=True))
    elif {"tid", "ts"} <= names:
        extra.append(command_name(commands))
    return frame.with_columns(extra)


def _texts(values: pl.Series) -> pl.Series:
    distinct = values.unique()
    texts = pl.Series([None if raw is None else comm_text(raw) for raw in distinct], dtype=pl.String)
    return values.replace_strict(distinct, texts, return_dtype=pl.String)


def command_number(commands: Callable[[], CommandsInForce]) -> pl.Expr:
    """Return the expression for the number, among `CommandsInForce.names`, of a thread's command when the call was entered."""
    return (
        pl.struct("tid", "ts")
        .map_batches(
            lambda pairs: pl.Series(commands().codes(pairs.struct.field("tid").to_numpy(), pairs.struct.field("ts").to_numpy())),
            return_dtype=pl.Int32,
            is_elementwise=True,
        )
        .alias("command")
    )


def command_name(commands: Callable[[], CommandsInForce]) -> pl.Expr:
    """Return the expression for the command name of a thread when the call was entered; null where no row names it."""

    def texts(pairs: pl.Series) -> pl.Series:
        known = commands()
        numbers = known.codes(pairs.struct.field("tid").to_numpy(), pairs.struct.field("ts").to_numpy())
        names = pl.Series([*known.names, None], dtype=pl.String)
        return names.gather(pl.Series(numbers).replace(-1, len(known.names)))

    return pl.struct("tid", "ts").map_batches(texts, return_dtype=pl.String, is_elementwise=True).alias("comm")
