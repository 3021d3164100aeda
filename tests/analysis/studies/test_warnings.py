"""Warnings are raised when there is reason, and how often when there is none is measured."""

import numpy as np
import polars as pl
import pytest

from ringtape.analysis.studies.reading import Reading
from ringtape.analysis.studies.slowdown import observed
from ringtape.analysis.studies.warnings import WARNINGS, modes, null, order, trend
from tests.analysis.studies.simulated import session, simulate, skewed

MANY = tuple(f"w{number}" for number in range(100))


def kinds(results, **more):
    return set(Reading(results, **more).warnings["kind"])


def found(results, kind, **more):
    return Reading(results, **more).warnings.filter(pl.col("kind") == kind).to_dicts()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """100 workloads, 10 blocks each, on a machine with skewed noise and nothing else."""
    return simulate(tmp_path_factory.mktemp("quiet") / "a.study", workloads=MANY, treatments=("ringtape",), slowdown={"ringtape": 1.2})


def rates(p):
    """Share of false alarms at 5 % and at 1 %."""
    values = np.array([one for one in p if one is not None])
    assert len(values) == len(MANY)
    return float((values <= 0.05).mean()), float((values <= 0.01).mean())


def test_order_is_a_false_alarm_as_rarely_as_it_says(quiet):
    five, one = rates(order(observed(quiet, workload, "wall"))[1] for workload in quiet.study.workloads)
    assert five <= 0.11
    assert one <= 0.04


def test_drift_is_a_false_alarm_as_rarely_as_it_says(quiet):
    def p(workload):
        base = observed(quiet, workload, "wall").filter(treatment="none", replica=0).sort("repetition")
        return trend(base["repetition"].to_list(), base["cost"].log().to_list())[1]

    five, one = rates(p(workload) for workload in quiet.study.workloads)
    assert five <= 0.11
    assert one <= 0.04


@pytest.mark.parametrize("count", [8, 10, 20, 40])
def test_two_kinds_of_times_are_a_false_alarm_as_rarely_as_they_say_and_found_when_there_are(count):
    generator = np.random.default_rng(7)
    limits = np.quantile(null(count), [0.95, 0.99])
    for one_mode in (generator.standard_normal((2000, count)), generator.standard_exponential((2000, count)), skewed(generator, (2000, count))):
        score, _ = modes(np.sort(one_mode, axis=1))
        assert (score > limits[0]).mean() <= 0.07
        assert (score > limits[1]).mean() <= 0.02
    two = generator.standard_normal((500, count)) + 12 * (np.arange(count) % 2)
    score, where = modes(np.sort(two, axis=1))
    assert (score > limits[1]).mean() > 0.9
    assert np.median(where) == count // 2 + count % 2


def test_a_whole_quiet_study_of_100_workloads_raises_nothing_of_what_is_corrected_for_its_size(quiet):
    warnings = Reading(quiet).warnings
    assert set(warnings["kind"]) <= {"control", "outlier"}
    # 5 % of controls exclude 1 by chance; that is said of each.
    controls = warnings.filter(kind="control").to_dicts()
    assert len(controls) <= 0.1 * len(MANY)
    assert all("by chance" in one["what"] for one in controls if one["p"] > 0.05)
    assert (warnings["kind"] == "outlier").sum() <= 0.02 * 2 * len(MANY)


def test_a_quiet_study_has_no_warning(tmp_path):
    assert len(Reading(simulate(tmp_path / "a.study", seed=3)).warnings) == 0


def test_an_order_effect_is_found_with_its_size_and_a_small_one_is_not_a_matter(tmp_path):
    (one,) = found(simulate(tmp_path / "a.study", order=0.03, repetitions=12), "order")
    assert one["figure"] == pytest.approx(np.expm1(0.09), abs=0.03)
    assert one["p"] < 0.01
    assert "first" in one["what"]
    tiny = simulate(tmp_path / "b.study", order=0.0005, noise=lambda generator: generator.normal(0, 1e-5))
    assert "order" not in kinds(tiny)


@pytest.mark.parametrize("seed", range(5))
def test_drift_of_the_machine_is_found_whatever_the_noise_and_moves_no_ratio(tmp_path, seed):
    warnings = Reading(simulate(tmp_path / "a.study", drift=0.03, seed=seed, slowdown={"ringtape": 1.5})).warnings
    (one,) = warnings.filter(pl.col("kind") == "drift").to_dicts()
    assert one["figure"] == pytest.approx(np.expm1(0.27), abs=0.1)
    assert "slows down" in one["what"]
    assert "trend" not in set(warnings["kind"])


def test_a_slowdown_that_grows_is_found_for_its_treatment_alone(tmp_path):
    def change(one):
        if one["treatment"] == "ringtape":
            one["wall"] = int(one["wall"] * 1.05 ** max(0, one["repetition"]))

    results = simulate(tmp_path / "a.study", change=change)
    (one,) = found(results, "trend")
    assert (one["workload"], one["treatment"]) == ("w", "ringtape")
    assert "rises" in one["what"]
    assert "drift" not in kinds(results)


def test_times_of_two_kinds_are_found(tmp_path):
    def change(one):
        if one["treatment"] == "strace" and one["repetition"] % 2:
            one["wall"] *= 2

    (one,) = found(simulate(tmp_path / "a.study", change=change, repetitions=12), "modes")
    assert (one["treatment"], one["figure"]) == ("strace", pytest.approx(1.0, abs=0.1))
    assert "6 runs" in one["what"]


def test_an_outlier_is_said_with_its_block_and_kept(tmp_path):
    def change(one):
        if one["treatment"] == "ringtape" and one["repetition"] == 4:
            one["wall"] *= 5

    reading = Reading(simulate(tmp_path / "a.study", change=change))
    (one,) = reading.warnings.filter(pl.col("kind") == "outlier").to_dicts()
    assert "block 5" in one["what"]
    assert reading.slowdowns.filter(treatment="ringtape", measure="wall")["blocks"].item() == 10


def test_a_control_that_is_not_1_is_said(tmp_path):
    def change(one):
        if one["replica"] == 1:
            one["wall"] = int(one["wall"] * 1.2)

    (one,) = found(simulate(tmp_path / "a.study", change=change), "control")
    assert one["figure"] == pytest.approx(1.2, abs=0.05)
    assert "by chance" not in one["what"]


def test_too_few_blocks_are_said_by_the_method_that_needs_more(tmp_path):
    two = simulate(tmp_path / "a.study", repetitions=2)
    assert [one["treatment"] for one in found(two, "few")] == ["ringtape", "strace"]
    five = simulate(tmp_path / "b.study", repetitions=5)
    assert ["normal" in one["what"] for one in found(five, "few")] == [True]
    assert ["6 at least" in one["hint"] for one in found(five, "few", method="rank")] == [True, True]
    assert "few" not in kinds(simulate(tmp_path / "c.study", repetitions=6))


def test_disturbed_blocks_failures_and_losses_are_said_with_their_figures(tmp_path):
    def change(one):
        if one["repetition"] == 2:
            one.update(disturbed=1, outside=0.4)
        if one["treatment"] == "ringtape" and one["repetition"] >= 0:
            one["lost"] = 10_000
        if one["treatment"] == "strace" and one["repetition"] == 5:
            one.update(end=2, message="stopped after 60 s")

    results = simulate(tmp_path / "a.study", change=change)
    (disturbed,), (lost,), (failed,) = (found(results, kind) for kind in ("disturbed", "lost", "failed"))
    assert disturbed["figure"] == pytest.approx(0.1)
    assert "40%" in disturbed["what"]
    assert lost["figure"] == pytest.approx(1 / 101)
    assert "100,000 events" in lost["what"]
    assert "stopped after 60 s" in failed["what"]
    assert "time_limit" in failed["hint"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": "6.19.0"}, "the kernel changed: 6.18.0; 6.19.0"),
        ({"cpu": "Other"}, "the CPU changed"),
        ({"governor": ["powersave"]}, "the frequency governor is powersave in session 2"),
        ({"load": [1.5, 1, 1]}, "load average 1.50 on 2 CPUs before session 2"),
        ({"boot": "c"}, "started again between sessions (2 boots)"),
        ({"bpf": {"programs": 9, "links": 0}}, "BPF programs of others changed: 3, 3, 9, 9"),
        ({"versions": {"strace": "strace 7.0"}}, "the versions of the tools changed: strace"),
        ({"mitigations": {"meltdown": "PTI"}}, "the mitigations changed: meltdown"),
    ],
)
def test_a_machine_that_changed_between_sessions_is_said(tmp_path, change, said):
    results = simulate(tmp_path / "a.study", environment=[session(), session(**change)])
    assert any(said in one["what"] for one in found(results, "environment"))


def test_steal_and_a_session_that_was_broken_off_are_said(tmp_path):
    stolen, broken = session(), session()
    stolen["after"]["steal"] = 120.0
    broken["after"] = None
    said = [one["what"] for one in found(simulate(tmp_path / "a.study", environment=[stolen, broken]), "environment")]
    assert any("10.0% of the CPU time in session 1" in one for one in said)
    assert any("session 2 was broken off" in one for one in said)


@pytest.mark.parametrize("environment", [[], [{}], [{"before": 7, "after": "x"}], [{"before": {"load": "x", "cpus": 3, "governor": [None]}}]])
def test_an_environment_of_any_form_is_read(tmp_path, environment):
    warnings = Reading(simulate(tmp_path / "a.study", environment=environment)).warnings
    assert warnings.schema == {column.name: column.dtype for column in WARNINGS}
