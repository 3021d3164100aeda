"""What a study shows: slowdowns that are known, intervals that cover, costs by hand, what is missing, how many more runs."""

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from ringtape.analysis.studies.costs import COLUMNS as COSTS
from ringtape.analysis.studies.costs import costs
from ringtape.analysis.studies.precision import needed, precision
from ringtape.analysis.studies.reading import Reading
from ringtape.analysis.studies.results import FAILED, TIME_LIMIT, TOOL_FAILED
from ringtape.analysis.studies.slowdown import COLUMNS, estimate, pairs, slowdowns
from ringtape.schemas.errors import UsageError
from tests.analysis.studies.simulated import SECOND, session, simulate, skewed

QUIET = {"noise": lambda generator: 0.0}


def row(frame, workload, treatment, **more):
    (found,) = frame.filter(workload=workload, treatment=treatment, **more).iter_rows(named=True)
    return found


def test_a_slowdown_is_the_geometric_mean_of_the_ratios_in_blocks_and_its_interval_that_of_scipy(tmp_path):
    results = simulate(tmp_path / "a.study", slowdown={"ringtape": 1.1, "strace": 30.0}, drift=0.05)
    runs = results.runs.filter(pl.col("repetition") >= 0)
    logs = []
    for _, block in runs.group_by("block"):
        wall = {(one["treatment"], one["replica"]): one["wall"] for one in block.iter_rows(named=True)}
        logs.append(math.log(wall["ringtape", 0]) - (math.log(wall["none", 0]) + math.log(wall["none", 1])) / 2)
    interval = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    found = row(slowdowns(results), "w", "ringtape", measure="wall")
    assert found["slowdown"] == pytest.approx(math.exp(np.mean(logs)))
    assert (found["low"], found["high"]) == pytest.approx((math.exp(interval.low), math.exp(interval.high)))
    assert (found["blocks"], found["missing"], found["primary"], found["unit"]) == (10, 0, True, "ns")
    assert found["p"] == pytest.approx(stats.ttest_1samp(logs, 0).pvalue)


def test_the_control_is_the_second_baseline_against_the_first(tmp_path):
    def change(one):
        if one["treatment"] == "none":
            one["wall"] = SECOND if one["replica"] == 0 else SECOND * 3 // 2

    found = row(slowdowns(simulate(tmp_path / "a.study", change=change, **QUIET)), "w", "none", measure="wall")
    assert (found["slowdown"], found["base"], found["other"]) == pytest.approx((1.5, 1e9, 1.5e9))


@pytest.mark.parametrize(("better", "metric", "expected"), [("higher", lambda wall: 1e12 / wall, 2.0), ("lower", lambda wall: wall / 1e6, 2.0)])
def test_a_metric_is_the_primary_measure_and_slower_is_above_1_whichever_is_better(tmp_path, better, metric, expected):
    metric_text = f"""name = "x/s"\nregex = "([0-9]+)"\nbetter = "{better}" """
    results = simulate(tmp_path / "a.study", slowdown={"ringtape": 2.0}, metric=metric, metric_text=metric_text, **QUIET)
    frame = slowdowns(results)
    found = row(frame, "w", "ringtape", measure="metric")
    assert (found["slowdown"], found["primary"], found["unit"]) == (pytest.approx(expected, rel=1e-6), True, "x/s")
    assert found["other"] == pytest.approx(metric(2 * SECOND), rel=1e-6)
    assert not row(frame, "w", "ringtape", measure="wall")["primary"]


def test_a_run_without_its_metric_is_missing_and_never_a_number(tmp_path):
    def change(one):
        one["metric"] = {0: None, 1: 0.0, 2: -1.0, 3: math.inf, 4: math.nan}.get(one["repetition"] if one["treatment"] == "ringtape" else -1, 5.0)

    metric_text = 'name = "x"\nregex = "([0-9]+)"'
    found = row(slowdowns(simulate(tmp_path / "a.study", change=change, metric_text=metric_text)), "w", "ringtape", measure="metric")
    assert (found["blocks"], found["missing"], found["slowdown"]) == (5, 5, 1.0)


@pytest.mark.parametrize("end", [FAILED, TIME_LIMIT, TOOL_FAILED])
def test_runs_that_failed_or_were_stopped_are_counted_and_never_numbers(tmp_path, end):
    def change(one):
        if one["treatment"] == "strace" and one["repetition"] >= 0:
            if one["repetition"] > 1:
                return False  # given up
            one.update(end=end, wall=1, message="it took too long")
        return None

    reading = Reading(simulate(tmp_path / "a.study", change=change))
    found = row(reading.slowdowns, "w", "strace", measure="wall")
    assert (found["slowdown"], found["low"], found["blocks"], found["missing"]) == (None, None, 0, 10)
    assert row(reading.slowdowns, "w", "ringtape", measure="wall")["missing"] == 0
    failed = row(reading.failures, "w", "strace")
    assert (failed["runs"], failed["failed"] + failed["time_limit"] + failed["tool_failed"], failed["not_run"]) == (2, 2, 8)
    assert failed["message"] == "it took too long"


def test_a_baseline_that_failed_takes_its_block_with_it(tmp_path):
    def change(one):
        if one["treatment"] == "none" and one["replica"] == 1 and one["repetition"] == 3:
            one["end"] = FAILED

    found = slowdowns(simulate(tmp_path / "a.study", change=change)).filter(measure="wall")
    assert found["blocks"].to_list() == [9, 9, 9]


def test_a_block_that_was_repeated_counts_once_by_its_last_attempt(tmp_path):
    results = simulate(tmp_path / "a.study", slowdown={"ringtape": 1.5}, **QUIET)
    from ringtape.analysis.studies.results import Results, write
    from ringtape.schemas.studies import RUNS

    rows = results.runs.to_dicts()
    again = [{**one, "attempt": 1, "run": one["run"] + len(rows), "wall": one["wall"] * (2 if one["treatment"] == "ringtape" else 1), "disturbed": 1}
             for one in rows if one["repetition"] == 0]  # fmt: skip
    write(results.path / "runs.parquet", RUNS, [*rows, *again])
    found = pairs(Results(results.path), results.study.workloads[0]).filter(treatment="ringtape")
    assert (len(found), found["ratio"].max(), found["ratio"].min()) == (10, pytest.approx(3.0), pytest.approx(1.5))
    assert row(slowdowns(Results(results.path)), "w", "ringtape", measure="wall")["disturbed"] == 1


def test_frames_have_their_columns_when_nothing_was_run(tmp_path):
    reading = Reading(simulate(tmp_path / "a.study", change=lambda one: False, environment=[]))
    assert reading.slowdowns.schema == {column.name: column.dtype for column in COLUMNS}
    assert reading.costs.schema == {column.name: column.dtype for column in COSTS}
    assert reading.slowdowns["slowdown"].null_count() == len(reading.slowdowns) > 0
    assert len(reading.accuracy) == 0
    assert set(reading.failures["not_run"]) == {10, 20}


def test_one_block_gives_a_ratio_and_no_interval(tmp_path):
    found = row(slowdowns(simulate(tmp_path / "a.study", repetitions=1, slowdown={"ringtape": 1.25}, **QUIET)), "w", "ringtape", measure="wall")
    assert (found["slowdown"], found["low"], found["high"], found["p"]) == (pytest.approx(1.25), None, None, None)


def test_costs_are_those_worked_out_by_hand(tmp_path):
    # 1 s becomes 1.5 s with a million events: 500 ns each; CPU time 0.9 s becomes 1.35 s: 450 ns each.
    found = row(costs(simulate(tmp_path / "a.study", slowdown={"ringtape": 1.5}, **QUIET)), "w", "ringtape")
    assert (found["cost"], found["cpu_cost"]) == pytest.approx((500.0, 450.0), rel=1e-6)
    assert (found["events"], found["lost"], found["lost_share"], found["bytes_per_event"]) == (1e6, 0, 0.0, 8.0)
    assert (found["tool_cpu"], found["tool_cpu_per_event"]) == (5e7, 50.0)


def test_the_cost_of_a_workload_of_fixed_time_is_that_of_its_work(tmp_path):
    # In 1 s each: 1000 requests without the tool, 500 with it, and a million events. The 500 took 0.5 s without: 500 ns each.
    def change(one):
        one["metric"] = 500.0 if one["treatment"] == "ringtape" else 1000.0
        one["user"], one["system"] = 600_000_000, 300_000_000

    metric_text = 'name = "requests/s"\nregex = "([0-9]+)"'
    found = row(costs(simulate(tmp_path / "a.study", change=change, metric_text=metric_text, **QUIET)), "w", "ringtape")
    assert (found["cost"], found["cpu_cost"]) == pytest.approx((500.0, 450.0))


def test_a_tool_that_does_not_count_has_no_cost_per_event_and_one_that_loses_a_share(tmp_path):
    def change(one):
        if one["treatment"] == "strace":
            one["events"] = one["lost"] = None
        elif one["treatment"] == "ringtape":
            one["lost"] = 250_000

    frame = costs(simulate(tmp_path / "a.study", change=change))
    silent = row(frame, "w", "strace")
    assert (silent["events"], silent["lost"], silent["cost"], silent["bytes_per_event"]) == (None, None, None, None)
    assert (row(frame, "w", "ringtape")["lost"], row(frame, "w", "ringtape")["lost_share"]) == (2_500_000, pytest.approx(0.2))


def test_a_level_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"the level is 1\.5"):
        slowdowns(simulate(tmp_path / "a.study", repetitions=1), level=1.5)


def covered(folder, count, method, repetitions=10, level=0.95, true=1.03):
    """Share of independent workloads whose interval holds the truth; on a machine that drifts by 1 % with each block of a workload."""
    names = tuple(f"w{number}" for number in range(count))
    options = {"workloads": names, "treatments": ("ringtape",), "repetitions": repetitions}
    results = simulate(folder, slowdown={"ringtape": true}, drift=0.01 / count, order=0.002, **options)
    inside = []
    for workload in results.study.workloads:
        found = pairs(results, workload)
        for name, truth in (("ringtape", true), ("none", 1.0)):
            one = estimate(found.filter(treatment=name)["ratio"].to_list(), method, level)
            inside.append(one.low <= truth <= one.high)
    return np.mean(inside)


@pytest.mark.parametrize(("method", "least", "most"), [("t", 0.91, 0.985), ("rank", 0.91, 0.99)])
def test_intervals_cover_as_often_as_they_claim_on_a_machine_that_drifts_with_skewed_noise(tmp_path, method, least, most):
    assert least <= covered(tmp_path / "a.study", 200, method) <= most


@pytest.mark.soak
@pytest.mark.parametrize("repetitions", [6, 10, 30])
@pytest.mark.parametrize("method", ["t", "rank"])
def test_intervals_cover_as_often_as_they_claim_in_thousands_of_studies(tmp_path, method, repetitions):
    share = covered(tmp_path / "a.study", 1500, method, repetitions)
    assert 0.935 <= share <= (0.985 if method == "rank" else 0.965)


def test_as_many_blocks_as_are_needed_make_the_interval_as_narrow_as_asked():
    generator = np.random.default_rng(5)
    ratios = np.exp(0.1 + 0.03 * generator.standard_normal(400))
    few = ratios[:40].tolist()
    count = needed(few, 0.01)
    halves = [math.sqrt(one.high / one.low) - 1 for one in (estimate(ratios[:size].tolist(), "t", 0.95) for size in (count // 2, 2 * count))]
    assert halves[1] < 0.01 < halves[0]
    # The definition, not the search: it is the least number that does.
    spread = np.std(np.log(few), ddof=1)
    half = {size: stats.t.ppf(0.975, size - 1) * spread / math.sqrt(size) for size in (count - 1, count)}
    assert half[count] <= math.log(1.01) < half[count - 1]


def test_what_is_narrow_enough_needs_no_more_blocks_and_the_rest_say_how_long_they_take(tmp_path):
    results = simulate(tmp_path / "a.study", slowdown={"ringtape": 1.1})
    assert set(precision(results, 0.5)["more"]) == {0}
    found = row(precision(results, 0.001), "w", "ringtape")
    blocks = results.measured().group_by("block").agg(pl.col("total").sum())["total"].mean()
    assert found["more"] > 0
    assert found["needed"] == 10 + found["more"]
    assert found["time"] == pytest.approx(found["more"] * blocks, rel=1e-6)
    alone = row(precision(simulate(tmp_path / "b.study", repetitions=1), 0.02), "w", "ringtape")
    assert (alone["half"], alone["needed"], alone["time"]) == (None, None, None)


def test_ranks_need_more_blocks_than_means_and_never_fewer_than_give_an_interval():
    ratios = [1.10, 1.12, 1.08, 1.11, 1.09]
    assert needed(ratios, 0.005, "rank") > needed(ratios, 0.005, "t")
    assert needed(ratios, 0.5, "rank") == 6
    assert needed([1.0, 1.0, 1.0], 0.01) == 3
    with pytest.raises(UsageError, match="precision"):
        needed(ratios, 0)


def test_skewed_noise_is_skewed():
    assert stats.skew(skewed(np.random.default_rng(1), 10_000)) > 1


def test_why_a_treatment_was_not_run_is_that_of_the_session(tmp_path):
    absent = {**session(), "missing": [{"kind": "treatment", "name": "strace", "why": "strace is not installed"}]}
    results = simulate(tmp_path / "a.study", change=lambda one: one["treatment"] != "strace", environment=[absent])
    found = row(Reading(results).failures, "w", "strace")
    assert (found["message"], found["not_run"]) == ("strace is not installed", 10)
