"""Exact order statistics of columns that are in memory, and the interval that holds them where rows were lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import polars as pl

FOREVER = (1 << 63) - 1


def bounded_quantiles(
    rows: pl.DataFrame, keys: Sequence[str], value: str, wanted: Mapping[str, Fraction], lost: str | None = None, unlocated: int = 0
) -> pl.DataFrame:
    """Return order statistics of a column in each group.

    The q-quantile of n values is the ceil(q n)-th smallest (at least the first): a value that did occur (Hyndman and Fan 1996,
    definition 1). Where values were lost, of which nothing is known but that they are not negative, it lies between the order
    statistics that it would be if all of them were smallest, or largest.

    Parameters
    ----------
    rows : DataFrame
        The values with their ``keys``.
    keys : sequence of str
        Columns to group by.
    value : str
        The column; null values do not count.
    wanted : mapping of str to Fraction
        Names and quantiles.
    lost : str, optional
        Column whose sum is the number of values that are missing in the group.
    unlocated : int
        Values of which it is not known whose they are: they may be missing in any group.

    Returns
    -------
    DataFrame
        ``keys``, and for each name ``<name>`` (null where the ends differ), ``<name>_low`` and ``<name>_high``.
    """
    grouped = rows.group_by(keys).agg(
        pl.col(value).drop_nulls().sort().alias("_values"), ((pl.col(lost).sum() if lost else pl.lit(0, pl.Int64)) + unlocated).alias("_lost")
    )
    values = grouped["_values"]
    columns: dict[str, list[int | None]] = {f"{name}{end}": [] for name in wanted for end in ("", "_low", "_high")}
    for at, missing in enumerate(grouped["_lost"].to_list()):
        known = values[at]
        for name, q in wanted.items():
            rank = max(1, -((-q.numerator * (len(known) + missing)) // q.denominator))
            low: int | None
            high: int | None
            if not len(known) and not missing:
                low = high = None
            else:
                low = int(known[rank - missing - 1]) if rank > missing else 0
                high = int(known[rank - 1]) if rank <= len(known) else FOREVER
            columns[name].append(low if low == high else None)
            columns[f"{name}_low"].append(low)
            columns[f"{name}_high"].append(high)
    return grouped.drop("_values", "_lost").with_columns(pl.Series(name, found, pl.Int64) for name, found in columns.items())
