"""Claims: what can be said, what is refused, when one holds, and whether it holds in a repetition."""

import json
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringtape.analysis.studies.claims import FUNCTIONS, parse_claim
from ringtape.analysis.studies.reading import Reading
from ringtape.analysis.studies.results import Results
from ringtape.analysis.studies.study_file import parse
from ringtape.analysis.studies.verdicts import claims, overall
from ringtape.analysis.studies.verification import beside, verify
from ringtape.cli import main
from ringtape.schemas.errors import UsageError
from tests.analysis.studies.simulated import session, simulate, text

STUDY = text(workloads=("redis", "nginx"), treatments=("ringtape", "strace", "perf record"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return parse(STUDY, tmp_path_factory.mktemp("study") / "study.toml")


def verdict(results, claim, **more):
    (found,) = claims(results, [claim], **more).iter_rows(named=True)
    return found


@pytest.mark.parametrize(
    "claim",
    [
        *(
            "slowdown(ringtape) < slowdown(strace)",
            "slowdown(ringtape,redis)<=1.25",
            "lost(ringtape) == 0",
            "  slowdown ( perf record , nginx ) > 1 ",
        ),
        *("bytes_per_event(ringtape) < 0.5 * bytes_per_event(strace)", "cost_per_event(ringtape) < 1.5us", "lost_share(strace) <= 1%"),
        *("slowdown('perf record') >= 50% * slowdown(strace, redis)", "tool_cpu(ringtape) < 2 s", "cpu_per_event(ringtape) < cpu_per_event(strace)"),
    ],
)
def test_what_can_be_claimed(study, claim):
    assert parse_claim(claim, study).text == claim


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("slowdown(ringtap) < 2", "did you mean ringtape?"),
        ("slowdwn(ringtape) < 2", "did you mean slowdown?"),
        ("slowdown(ringtape, redi) < 2", "did you mean redis?"),
        ("slowdown(none) < 2", "unknown treatment 'none'"),
        ("slowdown(ringtape)", "has no comparison"),
        ("slowdown(ringtape) < ", "has no comparison"),
        ("1 < slowdown(ringtape)", "nothing that can be compared"),
        ("slowdown(ringtape) < 1 < 2", "has no comparison"),
        ("slowdown(ringtape) = 1", "has no comparison"),
        ("slowdown(ringtape) != 1", "has no comparison"),
        ("slowdown(ringtape) == 1", "which what is measured never is"),
        ("slowdown(ringtape) < lost(strace)", "compares slowdown with lost"),
        ("slowdown(ringtape, redis) < slowdown(strace, nginx)", "compares the workloads redis and nginx"),
        ("slowdown(ringtape) < 150 ns", "no time"),
        ("cost_per_event(ringtape) < 5%", "a time"),
        ("accuracy(ringtape) == 1", "accuracy(TREATMENT) == equal"),
        ("accuracy(ringtape) == equal", "no workload knows the truth"),
        ("slowdown(ringtape) == equal", "nothing that can be compared"),
        ("0 * slowdown(ringtape) < 1", "above 0"),
        ("slowdown(ringtape, redis, 3) < 1", "3 arguments"),
        ("slowdown() < 1", "unknown treatment ''"),
        ("__import__('os').system('x') < 1", "nothing that can be compared"),
        ("slowdown(ringtape) < 1" + " " * 600, "622 characters"),
    ],
)
def test_what_can_not_be_claimed_is_named_with_what_to_do(study, claim, said):
    with pytest.raises(UsageError) as error:
        parse_claim(claim, study)
    assert said in str(error.value)
    assert error.value.hint


@given(st.text(max_size=80))
def test_any_text_is_a_claim_or_a_usage_error(claim):
    with suppress(UsageError):
        parse_claim(claim, parse(STUDY, Path("study.toml")))


@given(st.sampled_from(sorted(FUNCTIONS)), st.sampled_from(["<", "<=", ">", ">=", "=="]), st.text("0123456789.%nsuµe -*()ringtape,", max_size=20))
def test_what_is_nearly_a_claim_is_one_or_a_usage_error(function, operator, right):
    with suppress(UsageError):
        parse_claim(f"{function}(ringtape) {operator} {right}", parse(STUDY, Path("study.toml")))


def test_a_claim_of_a_treatment_that_the_workload_is_not_run_under_is_refused(tmp_path):
    limited = STUDY.replace('[workloads."redis"]', '[workloads."redis"]\ntreatments = ["ringtape"]')
    study = parse(limited, tmp_path / "study.toml")
    assert parse_claim("slowdown(strace, nginx) > 1", study).workload == "nginx"
    with pytest.raises(UsageError, match="can never be checked"):
        parse_claim("slowdown(strace, redis) > 1", study)


def test_a_wrong_claim_of_a_file_is_named_with_its_line(tmp_path):
    with pytest.raises(UsageError, match=r"study\.toml:3: unknown treatment 'ringtap'"):
        parse(text(claims=["slowdown(ringtap) < 2"]), tmp_path / "study.toml")


def test_claims_hold_do_not_hold_or_are_undecided_by_their_whole_interval(tmp_path):
    results = simulate(tmp_path / "a.study", slowdown={"ringtape": 1.10, "strace": 30.0})
    expected = {
        "slowdown(ringtape) < slowdown(strace)": "holds",
        "slowdown(strace) < slowdown(ringtape)": "does not hold",
        "slowdown(ringtape) <= 1.25": "holds",
        "slowdown(ringtape) < 1.05": "does not hold",
        "slowdown(ringtape) > 1.05": "holds",
        "slowdown(ringtape) < 1.10": "undecided",
        "slowdown(ringtape) < 5% * slowdown(strace)": "holds",
        "slowdown(ringtape) < 0.01 * slowdown(strace)": "does not hold",
        "cost_per_event(ringtape) < 200 ns": "holds",
        "cost_per_event(ringtape) < cost_per_event(strace)": "holds",
        "lost(ringtape) == 0": "holds",
        "bytes_per_event(ringtape) <= 8": "holds",
        "bytes_per_event(ringtape) < 8": "does not hold",
        "bytes_per_event(ringtape) <= bytes_per_event(strace)": "holds",
        "tool_cpu(ringtape) >= 50 ms": "holds",
    }
    found = claims(results, list(expected))
    assert dict(found.select("claim", "verdict").iter_rows()) == expected
    assert found.filter(verdict="undecided")["why"].item().startswith("the interval has both sides")
    one = verdict(results, "slowdown(ringtape) < slowdown(strace)")
    assert one["low"] < 1.1 / 30 < one["high"]
    assert (one["scale"], one["limit"], one["blocks"]) == ("ratio", 1.0, 10)


def test_two_treatments_are_compared_within_blocks(tmp_path):
    # The machine triples its times from block to block: only in the same block can 2 % be told.
    results = simulate(
        tmp_path / "a.study",
        slowdown={"ringtape": 1.00, "strace": 1.02},
        change=lambda one: one.update(wall=int(one["wall"] * 3 ** max(0, one["repetition"]))),
        noise=lambda generator: generator.normal(0, 0.001),
    )
    assert verdict(results, "slowdown(ringtape) < slowdown(strace)")["verdict"] == "holds"


def test_one_run_that_lost_events_is_enough_for_a_loss(tmp_path):
    def change(one):
        if one["treatment"] == "ringtape" and one["repetition"] == 7:
            one["lost"] = 3
        if one["treatment"] == "strace":
            one["lost"] = None

    results = simulate(tmp_path / "a.study", change=change)
    found = verdict(results, "lost(ringtape) == 0")
    assert (found["verdict"], found["value"], found["why"]) == ("does not hold", 3.0, "not in 1 of 10 runs")
    assert verdict(results, "lost(ringtape) <= 3")["verdict"] == "holds"
    assert verdict(results, "lost_share(ringtape) < 0.01%")["verdict"] == "holds"
    unknown = verdict(results, "lost(strace) == 0")
    assert (unknown["verdict"], unknown["value"]) == ("undecided", None)
    assert "does not say" in unknown["why"]


def test_too_few_blocks_and_missing_runs_decide_nothing(tmp_path):
    two = simulate(tmp_path / "a.study", repetitions=2, slowdown={"strace": 100.0})
    assert verdict(two, "slowdown(strace) > 2")["verdict"] == "undecided"
    five = simulate(tmp_path / "b.study", repetitions=5, slowdown={"strace": 100.0})
    assert verdict(five, "slowdown(strace) > 2")["verdict"] == "holds"
    assert verdict(five, "slowdown(strace) > 2", method="rank")["why"].startswith("5 blocks give no interval; it takes 6")
    without = simulate(tmp_path / "c.study", change=lambda one: one["treatment"] != "strace")
    assert verdict(without, "slowdown(ringtape) < slowdown(strace)")["why"] == "strace: no run that counts"


def test_a_claim_without_a_workload_is_of_each_and_holds_if_it_holds_in_all(tmp_path):
    slowdown = {("redis", "ringtape"): 1.1, ("nginx", "ringtape"): 1.5}
    results = simulate(tmp_path / "a.study", workloads=("redis", "nginx"), slowdown=slowdown)
    found = claims(results, ["slowdown(ringtape) < 1.25"])
    assert found.select("workload", "verdict").rows() == [("redis", "holds"), ("nginx", "does not hold")]
    assert overall(found["verdict"].to_list()) == "does not hold"
    assert overall([]) == "undecided"


def test_a_claim_of_what_is_just_at_the_limit_is_wrong_no_more_often_than_the_level_says(tmp_path):
    names = tuple(f"w{number}" for number in range(200))
    results = simulate(tmp_path / "a.study", workloads=names, treatments=("ringtape",), slowdown={"ringtape": 1.25})
    found = claims(results, ["slowdown(ringtape) < 1.25"])["verdict"].to_list()
    # Half of 5 % on each side.
    assert found.count("holds") <= 0.07 * len(names)
    assert found.count("does not hold") <= 0.07 * len(names)


@pytest.fixture
def published(tmp_path):
    said = ["slowdown(ringtape) < slowdown(strace)", "slowdown(ringtape) < 1.25", "lost(ringtape) == 0"]
    simulate(tmp_path / "there.study", claims=said, slowdown={"ringtape": 1.1, "strace": 30.0})
    return tmp_path / "there.study", said


def both(there, here):
    return verify(Reading(Results(there)), Reading(here))


def test_a_repetition_confirms_contradicts_or_leaves_open(published, tmp_path):
    there, said = published
    slower = {"ringtape": 1.4, "strace": 1.41}
    here = simulate(tmp_path / "here.study", claims=said, slowdown=slower, seed=5, repetitions=8)
    found = both(there, here)
    assert found["outcome"].to_list() == ["undecided here", "does not hold here", "holds here too"]
    assert (found["there_blocks"].to_list(), found["here_blocks"].to_list()) == ([10] * 3, [8] * 3)
    numbers = beside(Reading(Results(there)), Reading(here)).filter(treatment="strace").to_dicts()[0]
    assert numbers["change"] == pytest.approx(1.41 / 30, rel=0.05)
    assert numbers["change_low"] < numbers["change"] < numbers["change_high"]


def test_what_did_not_hold_there_is_not_confirmed(tmp_path):
    said = ["slowdown(ringtape) < 1.05"]
    there = simulate(tmp_path / "there.study", claims=said, slowdown={"ringtape": 1.5})
    here = simulate(tmp_path / "here.study", claims=said, seed=2)
    assert both(there.path, here)["outcome"].to_list() == ["not shown there"]


def test_another_study_is_no_repetition(published, tmp_path):
    other = simulate(tmp_path / "other.study", treatments=("ringtape",))
    with pytest.raises(UsageError, match=r"is no repetition of .* unknown treatment 'strace'"):
        both(published[0], other)
    with pytest.raises(UsageError, match="claims nothing"):
        both(other.path, other)


def test_the_verb_says_what_holds_and_ends_with_3_if_something_does_not(published, tmp_path, capsys):
    there, said = published
    simulate(tmp_path / "same.study", claims=said, slowdown={"ringtape": 1.1, "strace": 30.0}, seed=8, environment=[session(cpu="Other \x1b[31mCPU")])
    assert main(["study", "verify", str(there), "--against", str(tmp_path / "same.study")]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("holds here too") == 3
    assert "cpu: Test CPU there, Other \\x1b[31mCPU here" in shown.err
    assert "seed: 1 there, 8 here" in shown.err
    simulate(tmp_path / "worse.study", claims=said, slowdown={"ringtape": 2.0, "strace": 30.0})
    for form in ("markdown", "json", "csv"):
        assert main(["study", "verify", str(there), "--against", str(tmp_path / "worse.study"), "--format", form]) == 3
        out = capsys.readouterr().out
        assert "does not hold here" in out
    assert main(["study", "verify", str(there), "--against", str(tmp_path / "worse.study"), "--format", "json"]) == 3
    assert len(json.loads(capsys.readouterr().out)) == 3
    target = tmp_path / "v.parquet"
    main(["study", "verify", str(there), "--against", str(tmp_path / "worse.study"), "--format", "parquet", "--output", str(target)])
    assert pl.read_parquet(target)["outcome"].to_list().count("does not hold here") == 1


def test_verify_runs_the_study_of_the_results_again(tmp_path, capsys):
    study = text(treatments=(), repetitions=3).replace("claims = []", 'claims = ["slowdown(nice) < 50"]')
    study += '[treatments.nice]\ntool = "command"\noptions = ["nice", "{command}"]\n[noise]\nretries = 0\noutside = 1.0\nsteal = 1.0\n'
    (tmp_path / "s.toml").write_text(study)
    assert main(["study", "run", str(tmp_path / "s.toml"), "-q", "-o", str(tmp_path / "there.study")]) == 0
    status = main(["study", "verify", str(tmp_path / "there.study"), "-q", "-o", str(tmp_path / "here.study")])
    out = capsys.readouterr().out
    assert "slowdown(nice) < 50" in out
    # How long `true` takes is for the machine to say: whatever comes out is a verdict, and the status fits it.
    assert status == (0 if "holds here too" in out or "not shown there" in out else 3)
    assert len(Results(tmp_path / "here.study").measured()) == 9


def test_verify_refuses_what_it_cannot_repeat(tmp_path, capsys):
    simulate(tmp_path / "c.study", claims=["slowdown(ringtape) < 2"])
    assert main(["study", "verify", str(tmp_path / "c.study"), "-o", str(tmp_path / "c.study")]) == 2
    assert "holds the published results" in capsys.readouterr().err
