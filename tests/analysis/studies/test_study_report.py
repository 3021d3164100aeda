"""The report of a study in all its forms, its pictures, and the table of accuracy; names and messages in it may be hostile."""

import io
import json
import re

import numpy as np
import polars as pl
import pytest
from PIL import Image

from ringtape.analysis.studies.accuracy import COLUMNS, accuracy
from ringtape.analysis.studies.pictures import draw
from ringtape.analysis.studies.reading import KINDS, Reading
from ringtape.analysis.studies.report import make, ratio_text
from ringtape.analysis.studies.verdicts import claims
from ringtape.cli import main
from tests.analysis.studies.simulated import session, simulate

EVIL = "\x1b]0;owned\x07<script>alert(1)</script>|`x` [a](javascript:b) \u202eabc"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two workloads, one of whose treatments never came to its end."""

    def change(one):
        if one["treatment"] == "strace" and one["workload"] == "redis" and one["repetition"] >= 0:
            one.update(end=2, message=EVIL)

    said = ["slowdown(ringtape) < slowdown(strace)", "slowdown(ringtape) <= 1.25", "lost(ringtape) == 0"]
    options = {"workloads": ("redis", "tar"), "claims": said, "slowdown": {"ringtape": 1.1, "strace": 30.0}, "change": change}
    return simulate(tmp_path_factory.mktemp("study") / "a.study", environment=[session(cpu=EVIL)], **options)


def output(capsys, *words):
    assert main(["study", "report", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_the_text_has_all_that_is_asked_of_a_report(study, capsys):
    shown = output(capsys, study.path)
    for part in (
        *("design", "10 blocks of each of 2 workloads after 1 warm-up", "random order (seed 1)", "none again", "time limit", "Claims", "holds"),
        *("undecided", "strace: no run that counts", "Cost per event", "bytes/event", "Runs for intervals of ±2 %", "Warnings", "missing runs: 10"),
        *("Machine, before and after each session", "clock source", "ringtape study verify"),
    ):
        assert part in shown
    (ringtape,) = Reading(study).slowdowns.filter(workload="redis", treatment="ringtape", measure="wall").iter_rows(named=True)
    assert ratio_text(ringtape["slowdown"], ringtape["low"], ringtape["high"]) in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize("form", ["table", "markdown", "html", "json", "csv", "parquet"])
def test_every_form_can_be_written_to_a_file(study, tmp_path, form):
    target = tmp_path / "out"
    assert main(["study", "report", str(study.path), "--format", form, "--output", str(target)]) == 0
    data = target.read_bytes()
    assert b"redis" in data
    assert b"\x1b" not in data or form == "parquet"
    if form == "parquet":
        assert pl.read_parquet(target).equals(Reading(study).slowdowns)


def test_markdown_is_tables_in_which_no_text_is_mark_up(study, capsys):
    shown = output(capsys, study.path, "--format", "markdown")
    lines = shown.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("| workload | measure"))
    assert lines[first + 2].startswith("| redis | wall time | 1.0")
    for at, line in enumerate(lines):
        if re.fullmatch(r"\|(-+:?\|)+", line):
            width = line.count("|")
            rows = [row for row in lines[at - 1 : at + 40] if row.startswith("|")]
            assert all(len(re.findall(r"(?<!\\)\|", row)) == width for row in rows[:2])
    assert "<script" not in shown.replace("\\<script", "")
    assert "](javascript" not in shown
    assert "\\`x\\`" in shown


def test_the_page_needs_nothing_else_and_runs_nothing_of_others(study, capsys):
    shown = output(capsys, study.path, "--format", "html")
    assert shown.startswith("<!doctype html>")
    assert shown.count("<script>") == 1
    assert "&lt;script&gt;" in shown
    assert "alert(1)</script>" not in shown
    assert "default-src 'none'" in shown
    assert not re.search(r"(src|href)=\"(?!data:|#)", shown)
    assert shown.count('src="data:image/png;base64,') == 4
    for name in ("slowdowns", "claims", "costs", "warnings", "environment"):
        assert f'<section id="{name}">' in shown


def test_json_has_every_frame_the_design_and_the_machine_and_only_json_numbers(study, capsys):
    def refuse(name):
        raise AssertionError(name)

    document = json.loads(output(capsys, study.path, "--format", "json"), parse_constant=refuse)
    assert set(KINDS) <= set(document)
    assert (document["study"]["seed"], document["study"]["repetitions"], document["level"]) == (1, 10, 0.95)
    assert document["environment"][0]["before"]["kernel"] == "6.18.0"
    assert [row["verdict"] for row in document["claims"]].count("undecided") == 1
    assert len(document["slowdowns"]) == len(Reading(study).slowdowns)


@pytest.mark.parametrize("what", sorted(KINDS))
def test_every_table_can_be_had_by_itself(study, what, capsys):
    shown = output(capsys, study.path, "--format", "csv", "--what", what)
    assert shown.splitlines()[0].split(",") == [column.name for column in KINDS[what].columns]
    assert output(capsys, study.path, "--what", what) or not len(Reading(study).frame(what))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--precision", "0"], "no precision"),
        (["--precision", "2%%"], "no precision"),
        (["--level", "95"], "the level is 95.0"),
        (["--forms", "gif"], "the forms are"),
        (["--format", "html", "--what", "costs"], "no page"),
    ],
)
def test_what_cannot_be_reported_is_refused(study, words, said, capsys):
    assert main(["study", "report", str(study.path), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_no_study_is_refused(tmp_path, capsys):
    assert main(["study", "report", str(tmp_path)]) == 1
    assert "is not the result of a study" in capsys.readouterr().err


@pytest.mark.parametrize("change", [lambda one: False, lambda one: one.update(end=1, message=EVIL), lambda one: one["repetition"] < 0])
def test_a_study_of_which_nothing_counts_has_a_report_in_every_form(tmp_path, change, capsys):
    results = simulate(tmp_path / "a.study", claims=["slowdown(ringtape) < 2"], change=change, environment=[])
    for form in ("table", "markdown", "html", "json", "csv"):
        assert output(capsys, results.path, "--format", form)
    assert "undecided" in output(capsys, results.path)
    assert set(Reading(results).slowdowns["slowdown"]) == {None}


def test_one_block_has_a_report_without_intervals(tmp_path, capsys):
    shown = output(capsys, simulate(tmp_path / "a.study", repetitions=1).path)
    assert "1 block give no interval" in shown.replace("blocks", "block")
    assert not re.search(r"ringtape.*\d \[\d", shown)


def test_few_workloads_under_many_treatments_are_read_downwards(tmp_path):
    many = ("ringtape", *(f"t{number}" for number in range(6)))
    table = make(Reading(simulate(tmp_path / "a.study", treatments=many, repetitions=3))).sections[0].content
    assert table.heads == ["treatment", "w"]
    assert [row[0] for row in table.rows][2:] == ["none again", *many]


def test_pictures_show_every_block_and_name_every_treatment(study):
    drawn = {picture.name: picture.figure for picture in draw(Reading(study))}
    assert list(drawn) == ["slowdowns", "slowdown-01-redis", "slowdown-02-tar", "cost-per-event"]
    (axes,) = drawn["slowdown-02-tar"].axes
    assert sum(len(points.get_offsets()) for points in axes.collections) == 30
    assert [label.get_text() for label in axes.get_yticklabels()] == ["strace", "ringtape", "none again"]
    (axes,) = drawn["slowdown-01-redis"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ringtape", "none again"]
    (axes,) = drawn["slowdowns"].axes
    assert sum(len(points.get_offsets()) for points in axes.collections) == 50
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["none again", "ringtape", "strace"]
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize("width", ["column", "page", "slide"])
def test_pictures_are_written_for_where_they_are_read_and_cut_nothing_off(study, tmp_path, width, capsys):
    output(capsys, study.path, "--pictures", tmp_path / "p", "--width", width, "--forms", "png,svg")
    assert len(list((tmp_path / "p").iterdir())) == 8
    for path in (tmp_path / "p").glob("*.png"):
        pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("L"))
        edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edges == 255).all(), path.name
        assert (pixels < 128).mean() > 0.002


def test_names_in_pictures_are_no_mathematics_and_an_empty_study_says_so(tmp_path):
    drawn = draw(Reading(simulate(tmp_path / "a.study", change=lambda one: False)))
    assert "no block has both" in drawn[0].figure.axes[0].texts[0].get_text()
    assert [picture.name for picture in drawn] == ["slowdowns", "slowdown-01-w"]


# --- accuracy ---


def call(one, syscall, truth, count, **more):
    return {
        "ts": one["ts"],
        "run": one["run"],
        "truth": truth,
        "syscall": syscall,
        "count": count,
        "errors": None,
        "time": None,
        "bytes": None,
        **more,
    }


def told(one):
    """The workload makes 100 reads of 4096 bytes and 10 failing opens; each tool says of them what its row of the test says."""
    if one["repetition"] < 0:
        return
    yield call(one, "read", 1, 100, errors=0, time=1_000_000, bytes=409_600)
    yield call(one, "openat", 1, 10, errors=10)
    if one["treatment"] == "ringtape":
        yield call(one, "read", 0, 100, errors=0, time=990_000, bytes=409_600)
        yield call(one, "openat", 0, 10, errors=10, time=5)
        yield call(one, "close", 0, 10)
    if one["treatment"] == "strace":
        # It misses a read in every other run, says nothing of bytes, and does not list the opens.
        yield call(one, "read", 0, 100 - one["repetition"] % 2, errors=0)


@pytest.fixture
def truthful(tmp_path):
    said = ["accuracy(ringtape) == equal", "accuracy(strace) == equal", "accuracy(silent) == equal"]
    options = {"treatments": ("ringtape", "strace", "silent"), "repetitions": 4, "more": "truth = true", "claims": said}
    return simulate(tmp_path / "t.study", calls=told, **options)


def entry(frame, treatment, syscall, quantity):
    (found,) = frame.filter(treatment=treatment, syscall=syscall, quantity=quantity).iter_rows(named=True)
    return found


def test_accuracy_is_equal_differs_by_so_much_or_not_reported(truthful):
    frame = accuracy(truthful)
    same = entry(frame, "ringtape", "read", "bytes")
    assert (same["verdict"], same["truth"], same["reported"], same["equal"], same["runs"], same["stable"]) == ("equal", 409_600, 409_600, 4, 4, True)
    time = entry(frame, "ringtape", "read", "time")
    assert (time["verdict"], time["difference"], time["stable"]) == ("differs", pytest.approx(-0.01), True)
    missed = entry(frame, "strace", "read", "count")
    assert (missed["verdict"], missed["difference"], missed["least"], missed["most"]) == ("differs", pytest.approx(-0.005), -0.01, 0.0)
    assert (missed["equal"], missed["runs"], missed["stable"]) == (2, 4, False)
    assert entry(frame, "strace", "read", "bytes")["verdict"] == "not reported"
    # What a tool that lists calls does not list, it says 0 of.
    unlisted = entry(frame, "strace", "openat", "count")
    assert (unlisted["verdict"], unlisted["reported"], unlisted["difference"]) == ("differs", 0.0, -1.0)
    assert entry(frame, "silent", "read", "count")["verdict"] == "not reported"
    assert "close" not in set(frame["syscall"])
    assert frame.filter(syscall="openat", quantity="bytes").is_empty()
    assert entry(frame, "ringtape", "read", "errors")["difference"] is None


def test_the_truth_of_the_baseline_stands_for_a_run_that_told_none(tmp_path):
    def only_base(one):
        return (row for row in told(one) if row["truth"] == 0 or one["treatment"] == "none")

    found = entry(accuracy(simulate(tmp_path / "a.study", calls=only_base, repetitions=3)), "ringtape", "read", "count")
    assert (found["verdict"], found["runs"]) == ("equal", 3)


def test_claims_of_accuracy_are_of_counts_errors_and_bytes_in_every_run(truthful):
    found = claims(truthful)
    assert found["verdict"].to_list() == ["holds", "does not hold", "undecided"]
    assert found["why"][1].startswith("differs: count of openat")


def test_the_report_has_the_table_of_accuracy_where_a_workload_knows_the_truth(truthful, study, capsys):
    shown = output(capsys, truthful.path)
    assert "Accuracy: what tools report" in shown
    assert "-0.500% [-1.000%, +0.000%]" in shown
    assert "not reported" in shown
    assert "Accuracy" not in output(capsys, study.path)
    assert accuracy(study).schema == {column.name: column.dtype for column in COLUMNS}


def test_how_many_blocks_are_needed_is_said_only_where_a_study_can_have_them(tmp_path, capsys):
    wild = simulate(tmp_path / "a.study", noise=lambda generator: generator.normal(0, 2))
    assert "no study can have" in output(capsys, wild.path)
    shown = output(capsys, simulate(tmp_path / "b.study").path, "--precision", "0.5%")
    assert int(re.search(r"repetitions = (\d+) in the study file", shown)[1]) > 10
