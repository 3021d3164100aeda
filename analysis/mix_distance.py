"""How far two mixes of calls are from each other, and which calls make it up."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.grouping import Grouping
from ringtape.analysis.ledger import CHILD
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

Floats = npt.NDArray[np.float64]
By = Literal["syscall", "command"]
Of = Literal["calls", "time"]
BLOCKS = 40
"""Stretches of equal time into which each side is cut for the noise of its own."""
SHUFFLES = 999
SCHEMA = pl.Schema(
    {
        "group": pl.String,
        "base": pl.Int64,
        "other": pl.Int64,
        "share_base": pl.Float64,
        "share_other": pl.Float64,
        "contribution": pl.Float64,
        "part": pl.Float64,
    }
)


@dataclass(frozen=True)
class MixDistance:
    """Two mixes beside each other.

    Attributes
    ----------
    divergence : float
        Jensen-Shannon divergence in bits, from 0 (the same shares) to 1 (nothing in common). None if one side has no call.
    distance : float
        Its square root, a metric, also from 0 to 1.
    bias : float
        What the divergence would be on average by chance alone, were the calls of both sides drawn one by one from the same mix,
        in bits. None for a mix by time, whose unit is no draw.
    chance : float
        Distance that 95 % of the pairs of sides stay below that are dealt at random from the stretches of time of both: what
        the mixes change within the two recordings makes up so much. None if a side is too short to be cut.
    p : float
        Share of these deals, this one included, with at least the distance found.
    contributions : DataFrame
        One row per ``group`` (call or command), largest contribution first: ``base`` and ``other`` (calls, or ns), ``share_base``,
        ``share_other``, ``contribution`` (bits; they add up to the divergence exactly), ``part`` (of the divergence).
    """

    by: By
    of: Of
    divergence: float | None
    distance: float | None
    bias: float | None
    chance: float | None
    p: float | None
    contributions: pl.DataFrame


def mix_distance(base: Trace, other: Trace, *, of: Of = "calls", by: By = "syscall") -> MixDistance:
    """Compare the mixes of two traces, or of two parts of one (``trace.between``, ``trace.process``).

    Parameters
    ----------
    base, other : Trace
        The two sides.
    of : {"calls", "time"}
        Whether shares are of the number of calls, or of the time inside them.
    by : {"syscall", "command"}
        What the mix is made of.

    Returns
    -------
    MixDistance
        Divergence, distance, what chance makes of it, and the contribution of each call.

    Raises
    ------
    UsageError
        If ``of`` or ``by`` is something else.
    RingtapeError
        If a trace lacks a table that is needed.

    Notes
    -----
    With shares p and q and m = (p + q) / 2, call k contributes (p log2(p/m) + q log2(q/m)) / 2 bits, which is never negative;
    the sum is the Jensen-Shannon divergence with equal weights (Lin 1991, Divergence measures based on the Shannon entropy, IEEE
    Trans. Inf. Theory 37(1)), and its root a metric (Endres and Schindelin 2003, A new metric for probability distributions, IEEE
    Trans. Inf. Theory 49(7)). Base 2 makes both lie between 0 and 1. The size of a side does not count, only its shares.

    Shares that are estimated differ by chance, so the estimate is too large: for two sides of a and b independent calls of the
    same K kinds by (K - 1) (1/a + 1/b) / (8 ln 2) bits on average (second-order expansion of the entropies, as in Miller 1955).
    Calls come in phases and are not independent, so ``chance`` is found otherwise: each side is cut into 40 stretches of equal
    time, the stretches of both are dealt anew 999 times (a permutation test on blocks, which keeps what depends on each
    other within a stretch together), and 95 % of the distances stay below it. It holds for these two recordings; whether two
    systems differ needs several runs of each.

    Lost calls are in the numbers exactly when the mix is by system call; by command they are left out. ``chance`` is of recorded calls.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.mix_distance import mix_distance
    >>> trace = ringtape.open("datasets/demo.trace")
    >>> found = mix_distance(trace.process("tar"), trace.process("gzip"))
    >>> round(found.distance, 3), found.contributions["group"][0]
    (0.607, 'newfstatat')
    """
    if of not in ("calls", "time") or by not in ("syscall", "command"):
        raise UsageError(f"a mix of {of!r} by {by!r} is not compared", "of is calls or time, by is syscall or command")
    both = _numbers(base, by, of).join(_numbers(other, by, of), on="group", how="full", coalesce=True, suffix="_other").fill_null(0)
    both = both.sort("group")
    sides = [both[name].to_numpy().astype(np.float64) for name in ("number", "number_other")]
    totals = [int(both[name].sum()) for name in ("number", "number_other")]
    if not all(totals):
        empty = both.select("group", pl.col("number").alias("base"), pl.col("number_other").alias("other"))
        rows = empty.with_columns(pl.lit(None, kind).alias(name) for name, kind in SCHEMA.items() if name not in empty.columns)
        return MixDistance(by, of, None, None, None, None, None, rows.select(SCHEMA.names()).cast(SCHEMA))
    shares = [side / total for side, total in zip(sides, totals, strict=True)]
    parts = contributions(*shares)
    divergence = min(fsum(parts), 1.0)
    rows = both.select("group", pl.col("number").alias("base"), pl.col("number_other").alias("other")).with_columns(
        pl.Series("share_base", shares[0]),
        pl.Series("share_other", shares[1]),
        pl.Series("contribution", parts),
        pl.Series("part", parts / divergence if divergence else np.zeros(len(parts))),
    )
    kinds = len(both)
    bias = (kinds - 1) * (1 / totals[0] + 1 / totals[1]) / (8 * np.log(2)) if of == "calls" else None
    chance, p = _chance(_blocks(base, by, of), _blocks(other, by, of), sqrt(divergence))
    ordered = rows.sort("contribution", "group", descending=[True, False]).cast(SCHEMA)
    return MixDistance(by, of, divergence, sqrt(divergence), None if bias is None else float(bias), chance, p, ordered)


def contributions(p: Floats, q: Floats) -> Floats:
    """Return what each kind adds to the Jensen-Shannon divergence of two mixes, in bits.

    >>> contributions(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    array([0.5, 0.5])
    """
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        halves = [np.where(side > 0, side * np.log2(np.where(side > 0, side / m, 1)), 0) for side in (p, q)]
    return np.maximum((halves[0] + halves[1]) / 2, 0)


def _numbers(trace: Trace, by: By, of: Of) -> pl.DataFrame:
    from ringtape.analysis.analyses.syscall_mix import syscall_mix

    mix = syscall_mix(trace, by=by).drop_nulls(by)
    return mix.group_by(pl.col(by).alias("group")).agg(pl.col(of).sum().alias("number")).filter(pl.col("number") > 0)


def _blocks(trace: Trace, by: By, of: Of) -> pl.DataFrame:
    """Return the number of each group in stretches of equal time: ``block``, ``group``, ``number``."""
    grouping = Grouping.of(trace, by)
    calls = grouping.rows(trace.scan("syscalls").filter(pl.col("kind") != CHILD))
    low, high = trace.collect(calls.select(pl.col("ts").min().alias("low"), pl.col("ts").max().alias("high"))).row(0)
    if low is None:
        return pl.DataFrame(schema={"group": pl.String, "block": pl.Int64, "number": pl.Int64})
    width = -(-(high - low + 1) // BLOCKS)
    number = pl.len().cast(pl.Int64) if of == "calls" else pl.col("dur").sum()
    block = ((pl.col("ts") - low) // width).alias("block")
    found = trace.collect(calls.group_by(*grouping.keys, block).agg(number.alias("number")))
    return grouping.named(found).rename({by: "group"})


def _chance(base: pl.DataFrame, other: pl.DataFrame, found: float) -> tuple[float | None, float | None]:
    """Return the distance below which 95 % of the random deals stay, and the share of deals with no smaller one than was found."""
    names = {name: at for at, name in enumerate(sorted({*base["group"], *other["group"]}))}
    tables = []
    for side in (base, other):
        places, where = np.unique(side["block"].to_numpy(), return_inverse=True)
        table = np.zeros((len(places), len(names)))
        np.add.at(table, (where, np.array([names[name] for name in side["group"]], np.int64)), side["number"].to_numpy())
        tables.append(table[table.sum(axis=1) > 0])
    if min(map(len, tables)) < 10:
        return None, None
    pooled = np.concatenate(tables)
    generator = np.random.default_rng(0)
    size, deals = len(tables[0]), []
    for _ in range(SHUFFLES):
        order = generator.permutation(len(pooled))
        sides = [pooled[chosen].sum(axis=0) for chosen in (order[:size], order[size:])]
        deals.append(sqrt(float(contributions(*(side / side.sum() for side in sides)).sum())))
    return float(np.quantile(deals, 0.95)), (1 + sum(deal >= found for deal in deals)) / (1 + SHUFFLES)
