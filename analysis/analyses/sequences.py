"""Which sequences of calls are repeated, loops and all, and which of them cost most."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import polars as pl

from ringtape.analysis.analyses.ngrams import ARROW
from ringtape.analysis.call_order import BLOCK, OTHER, CallOrder, caveat
from ringtape.analysis.patterns import Grammar, Tokens
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

LEARNT = 1 << 20
"""Calls from which the patterns are learnt; of longer recordings, of stretches that lie evenly over it."""
STRETCHES = 16


@analysis(
    tables=("syscalls",),
    section=False,
    columns=(
        Result(
            "sequence",
            pl.String,
            "calls in order; `+`: in places repeated without a break; null: the calls that are in no sequence, one by one",
            absent="(in no sequence)",
        ),
        Result("count", pl.Int64, "occurrences, each with all its rounds; none overlaps another", "count"),
        Result("calls", pl.Int64, "calls in them; over all rows, the recorded calls", "count"),
        Result("time", pl.Int64, "from the entry of their first call to the return of their last, summed", "ns"),
        Result("share", pl.Float64, "share of the time of all rows", "share"),
        Result("inside", pl.Int64, "time of it inside the calls; over all rows, the time of the recorded calls", "ns"),
        Result("between", pl.Int64, "time of it between the calls", "ns"),
        Result("mean", pl.Float64, "time / count", "ns"),
        Result("longest", pl.Int64, "time of the occurrence that took longest", "ns"),
        Result("longest_at", pl.Int64, "when that began", "time"),
        Result("thread", pl.Int32, "thread in which that was"),
        Result("broken", pl.Int64, "places where lost calls broke sequences (the same in every row)", "count", detail=True),
        Result("cut", pl.Int64, "places where the end of a block of calls cut them (the same in every row)", "count", detail=True),
        Result("caveat", pl.String, "what is to be known of all rows", detail=True),
    ),
)
def sequences(trace: Trace, *, top: int = 20) -> pl.DataFrame:
    """Find the repeated sequences of calls, and what they cost inside and between the calls.

    Parameters
    ----------
    trace : Trace
        The recording.
    top : int
        Sequences that are returned at most; what is left out is in no row.

    Returns
    -------
    DataFrame
        One row per sequence, most time first: ``sequence``, ``count``, ``calls``, ``time``, ``share``, ``inside``, ``between``,
        ``mean``, ``longest`` (ns), ``longest_at``, ``thread``, ``broken``, ``cut``, ``caveat``. With a row for the calls that are
        in no sequence, ``calls`` and ``inside`` add up to all recorded calls and their time.

    Raises
    ------
    UsageError
        If top is negative.

    Notes
    -----
    The sequences are the symbols of a grammar, so each call is in exactly one, and only the longest pattern around it is
    counted, not its parts. The grammar is made as by Re-Pair (Larsson and Moffat 2000, Off-line dictionary-based compression,
    Proc. IEEE 88(11)): the pair of neighbours that is met most becomes a new symbol, again and again. Two things differ. A
    symbol that follows itself becomes one, as in ScalaTrace (Noeth et al. 2009), so that a loop is one pattern for any number
    of rounds. And a pair is only replaced if it makes up half of the occurrences of its rarer side and a quarter of the other's,
    so that neighbours by chance stay apart. It ends after 256 pairs, or when none is left that is met twice and would name no more
    than 12 calls.

    Calls follow each other as in the analysis ``ngrams``: never across threads, exec or lost calls. Memory is bounded: patterns
    are learnt from 2**20 calls (of a longer recording, 16 stretches that lie evenly over it) and then counted in all calls, 2**21
    at a time; where such a block ends, the sequences that cross its edge are cut, and ``cut`` says how many.

    Examples
    --------
    >>> from ringtape.analysis.analyses.sequences import sequences
    >>> sequences(getfixture("example_trace")).select("sequence", "count", "calls", "time", "inside", "between").rows()
    [(None, 2, 2, 3000, 3000, 0), ('read+', 1, 3, 2300, 600, 1700)]
    """
    if top < 0:
        raise UsageError(f"top {top} is negative", "give the number of sequences to return at most")
    order = CallOrder(trace)
    grammar = Grammar(OTHER + 1)
    grammar.learn(_together([Tokens.of(block) for block in order.blocks(0, _sample(order))]))
    found: list[pl.DataFrame] = []
    broken, edges, last = 0, 0, np.empty(0, np.int64)
    for block in order.blocks(0):
        threads = np.unique(block.thread)
        edges += len(np.intersect1d(threads, last))
        last = threads
        broken += block.broken
        found = [_summed(pl.concat([*found, _counted(grammar.parse(Tokens.of(block)), grammar)]))]
    if not found or not len(found[0]):
        return pl.DataFrame(schema=pl.Schema(dict(_SCHEMA.items())))
    rows = found[0].sort("time", "symbol", descending=[True, False])
    texts = [None if symbol < 0 else grammar.text(symbol, order.labels, ARROW) for symbol in rows["symbol"]]
    whole = rows["time"].sum()
    named = rows.with_columns(
        pl.Series("sequence", texts, pl.String),
        (pl.col("time") / whole if whole else pl.lit(0.0)).alias("share"),
        (pl.col("time") - pl.col("inside")).alias("between"),
        (pl.col("time") / pl.col("count")).alias("mean"),
        pl.lit(broken, pl.Int64).alias("broken"),
        pl.lit(edges, pl.Int64).alias("cut"),
        pl.lit(caveat(trace, broken, edges), pl.String).alias("caveat"),
    )
    kept = pl.concat([named.filter(pl.col("symbol") >= 0).head(top), named.filter(pl.col("symbol") < 0)])
    return kept.sort("symbol", descending=True).sort("time", descending=True, maintain_order=True).select(list(_SCHEMA))


_SCHEMA = {
    "sequence": pl.String,
    "count": pl.Int64,
    "calls": pl.Int64,
    "time": pl.Int64,
    "share": pl.Float64,
    "inside": pl.Int64,
    "between": pl.Int64,
    "mean": pl.Float64,
    "longest": pl.Int64,
    "longest_at": pl.Int64,
    "thread": pl.Int32,
    "broken": pl.Int64,
    "cut": pl.Int64,
    "caveat": pl.String,
}


def _sample(order: CallOrder) -> list[tuple[int, int]]:
    if order.calls <= LEARNT:
        return order.windows(BLOCK)
    windows = order.windows(LEARNT // STRETCHES)
    return [windows[at] for at in sorted({round(place) for place in np.linspace(0, len(windows) - 1, STRETCHES)})]


def _together(parts: list[Tokens]) -> Tokens:
    """Put blocks one behind the other; the last call of each is linked to none."""
    empty = np.empty(0, np.int64)
    joined = {part.name: np.concatenate([empty, *(getattr(tokens, part.name) for tokens in parts)]) for part in fields(Tokens)}
    return Tokens(**{**joined, "linked": joined["linked"].astype(np.bool_)})


def _counted(tokens: Tokens, grammar: Grammar) -> pl.DataFrame:
    """Return what each symbol stands for in a block; a call that is not repeated has symbol -1."""
    symbol = np.where((tokens.symbol < grammar.calls) & (tokens.calls == 1), -1, tokens.symbol)
    time = tokens.end - tokens.start
    frame = pl.DataFrame(
        {"symbol": symbol, "time": time, "inside": tokens.inside, "calls": tokens.calls, "at": tokens.start, "thread": tokens.thread}
    )
    longest = [pl.col(name).max_by("time").alias(alias) for name, alias in (("at", "longest_at"), ("thread", "thread"))]
    return frame.group_by("symbol").agg(
        pl.len().cast(pl.Int64).alias("count"), pl.col("calls", "time", "inside").sum(), pl.col("time").max().alias("longest"), *longest
    )


def _summed(frame: pl.DataFrame) -> pl.DataFrame:
    longest = [pl.col(name).max_by("longest") for name in ("longest_at", "thread")]
    return frame.group_by("symbol", maintain_order=True).agg(pl.col("count", "calls", "time", "inside").sum(), pl.col("longest").max(), *longest)


def notes(result: pl.DataFrame) -> list[str]:
    """Return what is to be said beside a result."""
    return result["caveat"].drop_nulls().unique().to_list()
