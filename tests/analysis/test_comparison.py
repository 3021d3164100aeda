"""Comparisons: intervals that cover as often as they claim, verdicts, what is missing, and totals that are explained to the last ns."""

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import ringtape
from ringtape.analysis.comparison.compare import compare
from ringtape.analysis.comparison.explain import explain
from ringtape.analysis.comparison.intervals import _mann_whitney_rank, _signed_rank, difference, holm, paired, rounding, superiority
from ringtape.analysis.comparison.shift import shift
from ringtape.analysis.plots.comparison import forest, shift_plot
from ringtape.cli import main
from ringtape.schemas.errors import UsageError
from tests.factory import T0, make

READ, WRITE, OPENAT = 0, 1, 257


def run(folder, durations, **more):
    """A run that makes calls with these durations: {number: [ns ...]}."""
    calls = [
        {"ts": T0 + 1000 * at, "nr": nr, "pid": 7, "dur": dur}
        for at, (nr, dur) in enumerate((nr, dur) for nr, each in durations.items() for dur in each)
    ]
    return ringtape.open(make(folder, syscalls=calls, **more))


@pytest.fixture
def sides(tmp_path):
    """Five runs each: reads take a fifth longer on the other side, writes are as they were, openat is made there alone."""
    base, other = [], []
    for number in range(5):
        noise = 3 * number
        base.append(run(tmp_path / f"b{number}.trace", {READ: [1000 + noise] * 20, WRITE: [500 + noise * (-1) ** number] * 10}))
        durations = {READ: [1200 + noise] * 20, WRITE: [500 - noise * (-1) ** number] * 10, OPENAT: [50]}
        other.append(run(tmp_path / f"o{number}.trace", durations))
    return base, other


def row(frame, measure, what):
    (found,) = frame.filter(measure=measure, what=what).iter_rows(named=True)
    return found


def test_a_slower_call_is_found_and_an_unchanged_one_is_not(sides):
    found = compare(*sides)
    read = row(found, "p50", "read")
    expected = math.exp(np.mean(np.log([1200 + 3 * n for n in range(5)])) - np.mean(np.log([1000 + 3 * n for n in range(5)])))
    assert read["ratio"] == pytest.approx(expected)
    assert read["low"] < expected < read["high"]
    assert (read["verdict"], read["superiority"], read["base_runs"], read["other_runs"]) == ("slower", 1.0, 5, 5)
    write = row(found, "p50", "write")
    assert write["verdict"] == "no difference shown"
    assert write["low"] < 1 < write["high"]
    assert row(found, "calls", "(all)")["verdict"] == "more"


def test_what_is_missing_on_a_side_is_missing_and_never_zero(sides):
    found = row(compare(*sides), "calls", "openat")
    assert (found["base"], found["ratio"], found["p"], found["other"]) == (None, None, None, 1.0)
    assert (found["verdict"], found["base_runs"], found["other_runs"]) == ("only in other", 0, 5)


def test_a_run_without_a_call_is_left_out_of_its_row(sides, tmp_path):
    base, other = sides
    base[0] = run(tmp_path / "without.trace", {READ: [1000]})
    found = row(compare(base, other), "p50", "write")
    assert (found["base_runs"], found["other_runs"]) == (4, 5)


def test_one_run_is_never_called_a_result(sides):
    base, other = sides
    found = compare(base[:1], other[:1])
    assert set(found["verdict"]) == {"too few runs", "only in other"}
    assert row(found, "p50", "read")["ratio"] == pytest.approx(1.2)
    assert found["low"].null_count() == len(found)


def test_a_margin_tells_what_is_negligible_from_what_is_not_known(sides):
    assert row(compare(*sides, margin=0.05), "p50", "write")["verdict"] == "within the margin"
    assert row(compare(*sides, margin=0.001), "p50", "write")["verdict"] == "no difference shown"
    assert row(compare(*sides, margin=0.05), "p50", "read")["verdict"] == "slower"


def test_pairs_remove_what_their_blocks_have_in_common(tmp_path):
    levels = [100, 1000, 10_000, 300, 3000, 30_000, 700]
    base = [run(tmp_path / f"b{level}.trace", {READ: [level]}) for level in levels]
    other = [run(tmp_path / f"o{level}.trace", {READ: [level * 11 // 10]}) for level in levels]
    for method in ("t", "rank"):
        apart, together = (row(compare(base, other, pair=pair, method=method), "p50", "read") for pair in (False, True))
        assert apart["verdict"] == "no difference shown"
        assert together["ratio"] == pytest.approx(1.1)
    assert row(compare(base, other, pair=True, method="t"), "p50", "read")["verdict"] == "slower"
    with pytest.raises(UsageError, match="7 and 6 runs are no pairs"):
        compare(base, other[:6], pair=True)


def test_impossible_questions_are_refused(sides):
    base, other = sides
    for wrong, options in (
        ("stands on both sides", {"other": base}),
        ("side has no run", {"other": []}),
        ("the level is 2", {"level": 2}),
        ("the margin is -1", {"margin": -1}),
        ("no measure 'speed'", {"measures": ("speed",)}),
    ):
        with pytest.raises(UsageError, match=wrong):
            compare(base, options.pop("other", other), **options)


def test_lost_calls_are_counted_and_leave_quantiles_open(sides, tmp_path):
    base, other = sides
    lost = [{"ts": T0, "nr": READ, "pid": 7, "dur": 10**6, "lost": True}] * 30
    calls = [{"ts": T0 + 1 + at, "nr": READ, "pid": 7, "dur": 1000} for at in range(20)]
    base[0] = ringtape.open(make(tmp_path / "lossy.trace", syscalls=lost + calls))
    found = compare(base, other)
    assert row(found, "p50", "read")["base_runs"] == 4
    assert row(found, "calls", "read")["base"] == (50 + 4 * 20) / 5


def test_the_change_of_a_total_is_explained_to_the_last_ns(sides):
    found = explain(*sides)
    whole, parts = found.filter(what="(all)").row(0, named=True), found.filter(pl.col("what") != "(all)")
    assert parts["change"].sum() == pytest.approx(whole["change"], abs=1e-6)
    assert (parts["by_count"] + parts["by_mean"]).to_list() == pytest.approx(parts["change"].to_list())
    read = parts.filter(what="read").row(0, named=True)
    assert (read["change"], read["by_count"], read["by_mean"]) == (pytest.approx(4000), pytest.approx(0, abs=1e-9), pytest.approx(4000))
    opened = parts.filter(what="openat").row(0, named=True)
    assert (opened["by_count"], opened["by_mean"]) == (pytest.approx(50), 0)


RUNS = st.lists(
    st.dictionaries(st.sampled_from([READ, WRITE, OPENAT]), st.lists(st.integers(0, 10**12), min_size=1, max_size=4)), min_size=1, max_size=3
)


@settings(max_examples=15)
@given(RUNS, RUNS)
def test_explanations_add_up_whatever_the_runs(tmp_path_factory, base, other):
    folder = tmp_path_factory.mktemp("runs")
    sides = [[run(folder / f"{side}{at}", each) for at, each in enumerate(runs)] for side, runs in (("b", base), ("o", other))]
    found = explain(*sides)
    means = [sum(sum(map(sum, each.values())) for each in runs) / len(runs) for runs in (base, other)]
    whole = found.filter(what="(all)").row(0, named=True)
    assert (whole["base"], whole["other"]) == (pytest.approx(means[0]), pytest.approx(means[1]))
    parts = found.filter(pl.col("what") != "(all)")
    tolerance = 1e-9 * max(1.0, *means)
    assert parts["change"].sum() == pytest.approx(means[1] - means[0], abs=tolerance)
    assert (parts["by_count"] + parts["by_mean"]).to_list() == pytest.approx(parts["change"].to_list(), abs=tolerance)


def test_the_shift_function_shows_a_tail_that_grew(tmp_path):
    body = list(range(1000, 1099))
    base = [run(tmp_path / f"b{n}", {READ: [*body, 2000 + n]}) for n in range(4)]
    other = [run(tmp_path / f"o{n}", {READ: [*body, 8000 + n]}) for n in range(4)]
    found = shift(base, other, "read")
    assert found.filter(pl.col("quantile") < 0.99)["ratio"].to_list() == pytest.approx([1.0] * 19)
    last = found.row(-1, named=True)
    assert last["quantile"] == 0.999
    assert 3.9 < last["low"] < last["ratio"] < last["high"] < 4.1
    assert found.row(9, named=True)["base"] == pytest.approx(1049)


def test_calls_that_a_side_does_not_make_have_no_shift(sides):
    found = shift(*sides, "openat")
    assert found["base_runs"].to_list() == [0] * len(found)
    assert found["ratio"].null_count() == len(found)
    assert shift_plot(found, "nothing").axes


def test_pictures_of_nothing_and_of_much_are_drawn(sides):
    found = compare(*sides)
    assert len(forest(found, "all").axes) == 1
    assert forest(found.clear(), "none").axes
    assert forest(pl.concat([found] * 20), "much").axes


def test_ledger_shares_are_compared_as_differences(tmp_path):
    def scheduled(name, on):
        stays = [
            {"ts": T0, "dur": on, "run": on, "slice": 0, "state": 1, "pid": 7},
            {"ts": T0 + 1000, "dur": 100, "run": 100, "slice": 1, "state": 128, "pid": 7},
        ]
        return ringtape.open(make(tmp_path / name, sched=stays, syscalls=[], processes=[{"ts": T0, "pid": 7, "kind": 1, "comm": b"a"}]))

    base, other = ([scheduled(f"{side}{n}", on + n) for n in range(4)] for side, on in (("b", 200), ("o", 600)))
    found = row(compare(base, other, measures=("ledger",)), "ledger", "user")
    assert found["difference"] == pytest.approx(400 / 1100)
    assert found["verdict"] == "more"
    parts = explain(base, other).filter(pl.col("total") == "ledger", pl.col("what") != "(all)")
    assert parts["change"].sum() == pytest.approx(0, abs=1e-9)


# ---- statistics


def test_intervals_agree_with_scipy():
    random = np.random.default_rng(7)
    for _ in range(20):
        left, right = random.lognormal(0, 1, random.integers(3, 12)), random.lognormal(0.5, 2, random.integers(3, 12))
        found, known = difference(left, right), stats.ttest_ind(right, left, equal_var=False)
        interval = known.confidence_interval()
        assert (found.low, found.high, found.p) == (pytest.approx(interval.low), pytest.approx(interval.high), pytest.approx(known.pvalue))
        values = random.normal(0.3, 1, random.integers(3, 12))
        found, known = paired(values), stats.ttest_1samp(values, 0)
        assert (found.low, found.p) == (pytest.approx(known.confidence_interval().low), pytest.approx(known.pvalue))


@pytest.mark.parametrize(("runs", "critical"), [((4, 4), 0), ((5, 5), 2), ((8, 8), 13), ((6, 10), 11), ((3, 3), None), ((20, 20), 127)])
def test_rank_intervals_leave_out_what_tables_say(runs, critical):
    # Critical values of U, two-sided 5 %: Siegel 1956, table K.
    assert _mann_whitney_rank(*runs, 0.05) == critical


@pytest.mark.parametrize(("pairs", "critical"), [(5, None), (6, 0), (8, 3), (10, 8), (20, 52), (25, 89)])
def test_signed_rank_intervals_leave_out_what_tables_say(pairs, critical):
    # Critical values of T, two-sided 5 %: Wilcoxon 1949.
    assert _signed_rank(pairs, 0.05) == critical


def test_the_normal_approximation_meets_exact_counting():
    exact, near = _mann_whitney_rank(50, 50, 0.05), _mann_whitney_rank(50, 51, 0.05)
    assert 0 < near - exact < 60


def test_holm_never_calls_more_than_it_may():
    assert holm([0.04, 0.01, 0.03]) == [pytest.approx(0.06), pytest.approx(0.03), pytest.approx(0.06)]
    assert holm([None, 1.0]) == [None, 1.0]
    assert superiority([1, 1], [1, 1]) == 0.5


def coverage(method, pairs, runs, repeats, seed):
    """Return how often intervals hold a known ratio of 1.03: skewed noise, and blocks that drift by 1 % each where paired."""
    random = np.random.default_rng(seed)
    true, held = math.log(1.03), 0
    for _ in range(repeats):
        drift = 0.01 * np.arange(runs) if pairs else 0
        base = drift + np.log(1 + random.gamma(1, 0.02, runs))
        other = drift + true + np.log(1 + random.gamma(1, 0.02, runs))
        found = paired(other - base, method) if pairs else difference(base, other, method)
        assert found.low is not None
        held += found.low <= true <= found.high
    return held / repeats


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("method", "runs"), [("t", 5), ("t", 10), ("rank", 6), ("rank", 10)])
def test_intervals_cover_as_often_as_they_claim(method, runs, pairs):
    repeats = 400
    found = coverage(method, pairs, runs, repeats, seed=runs)
    # Four standard deviations of a binomial below 95 %: a method that covers 90 % fails.
    assert found >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / repeats)


@pytest.mark.soak
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("method", "runs"), [("t", 3), ("t", 5), ("t", 10), ("t", 30), ("rank", 6), ("rank", 10), ("rank", 30)])
def test_intervals_cover_as_often_as_they_claim_in_twenty_thousand_studies(method, runs, pairs):
    assert coverage(method, pairs, runs, 20_000, seed=1) >= 0.945


def test_verdicts_of_nothing_are_rarely_wrong():
    """A against A, many rows: after Holm's correction few studies have any verdict."""
    random = np.random.default_rng(11)
    wrong = 0
    for _ in range(200):
        p = [difference(*random.lognormal(0, 0.05, (2, 8))).p for _ in range(30)]
        wrong += min(value for value in holm(p) if value is not None) <= 0.05
    assert wrong / 200 <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 200)


def test_times_that_are_equal_in_every_run_are_known_to_a_nanosecond_only(tmp_path):
    """Medians of short calls are often the same in every run of a side: that is rounding, not certainty."""
    base, near, far = ([run(tmp_path / f"{time}-{number}.trace", {READ: [time] * 20}) for number in range(3)] for time in (171, 172, 190))
    for pair in (False, True):
        found = row(compare(base, near, pair=pair), "p50", "read")
        assert found["verdict"] == "no difference shown"
        assert found["low"] < 1 < found["high"]
        assert row(compare(base, far, pair=pair), "p50", "read")["verdict"] == "slower"
    level = shift(base, near, "read")
    assert (level["low"] < 1).all()
    assert (level["high"] > 1).all()
    # Counts are exact: one call more in every run is one call more.
    assert row(compare(base, [run(tmp_path / f"{n}.trace", {READ: [171] * 21}) for n in range(3)]), "calls", "read")["verdict"] == "more"


def test_rounding_makes_no_verdicts_of_nothing():
    """Times around 171.5 ns, rounded: three runs at 171 against three at 172 happen in one of 32 studies, and show nothing."""
    random = np.random.default_rng(12)
    values = np.round(171.5 + random.normal(0, 0.3, (4000, 2, 3)))
    p = [difference(*np.log(study), least=(rounding(study[0], 1), rounding(study[1], 1))).p for study in values]
    assert np.mean([value <= 0.05 for value in p]) <= 0.05
    assert np.mean([value <= 0.005 for value in p]) == 0
    assert np.mean([difference(*np.log(study)).p <= 0.005 for study in values]) > 0.02


# ---- the verb


def test_the_verb_compares_folders_of_traces_and_fails_as_asked(sides, tmp_path, capsys):
    for side, traces in zip(("base", "other"), sides, strict=True):
        (tmp_path / side).mkdir()
        for trace in traces:
            trace.path.rename(tmp_path / side / trace.path.name)
    command = ["compare", str(tmp_path / "base"), "--with", str(tmp_path / "other")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "slower" in printed
    assert "5+5" in printed
    assert main([*command, "--fail-if", "slower,more"]) == 3
    assert main([*command, "--fail-if", "faster"]) == 0
    capsys.readouterr()
    assert main([*command, "--format", "json", "--measures", "p50"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {each["measure"] for each in rows} == {"p50"}
    assert main([*command, "--explain"]) == 0
    assert "by mean" in capsys.readouterr().out
    picture = tmp_path / "shift.png"
    assert main([*command, "--shift", "read", "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--explain", "--picture", str(picture)]) == 2


def test_recordings_that_differ_in_how_they_were_made_are_named(sides, tmp_path, capsys):
    base, other = sides
    other[0] = run(
        tmp_path / "elsewhere.trace", {READ: [1]}, header={"host": {"name": "host", "kernel": "5.10.0", "machine": "x86_64", "cpu": "x", "cpus": 2}}
    )
    assert main(["compare", *(str(trace.path) for trace in base), "--with", *(str(trace.path) for trace in other)]) == 0
    assert "the runs differ in their kernels: 5.10.0; 6.18.0" in capsys.readouterr().err
