"""The recordings of the repository: what each is, that it is whole, and that every analysis says of it what it said."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import ringtape
from ringtape import datasets
from ringtape.analysis.analyses.loss import loss
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.analysis.comparison.compare import compare
from ringtape.analysis.dataset_listing import every, markdown, recorded_sums, written_anew
from ringtape.analysis.verification import verify
from ringtape.cli import main
from tests.analysis import golden

ROOT = Path(__file__).parents[2]
README = ROOT / "datasets" / "README.md"
MIB = 1 << 20


@pytest.mark.parametrize("name", datasets.names())
def test_every_analysis_says_what_it_said(name):
    expected = json.loads((golden.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    found = json.loads(json.dumps(golden.results(name)))
    assert found.keys() == expected.keys(), f"python -m tests.analysis.golden {name} writes what is new"
    different = {analysis: (found[analysis], expected[analysis]) for analysis in found if not golden.same(found[analysis], expected[analysis])}
    assert different == {}


def test_golden_results_are_those_of_the_recordings_that_there_are():
    assert {path.stem for path in golden.FOLDER.glob("*.json")} == set(datasets.names())
    told = [result for path in golden.FOLDER.glob("*.json") for result in json.loads(path.read_text()).values()]
    assert sum("rows" in result for result in told) > len(told) / 2, "most analyses say something of most recordings"


def test_a_result_that_changed_is_seen():
    one = golden.told(datasets.load("git"), golden.registry.get("syscall_mix"))
    assert golden.same(one, json.loads(json.dumps(one)))
    empty, finite, total, least, greatest = one["floats"]["mean"]
    means = (
        [empty + 1, finite, total, least, greatest],
        [empty, finite, total * 1.001, least, greatest],
        [empty, finite, total, least * 1.001, greatest],
    )
    for change in ({"rows": one["rows"] + 1}, {"digest": "0" * 16}, *({"floats": {**one["floats"], "mean": mean}} for mean in means)):
        assert not golden.same({**one, **change}, one)


@pytest.mark.parametrize("path", [path for name in datasets.names() for path in datasets.paths(name)], ids=lambda path: path.stem)
def test_a_recording_is_whole(path):
    assert verify(path).problems == []
    trace = ringtape.open(path)
    assert trace.state == "complete"
    assert bool(trace.lost()) == (path.stem == "loss"), "what was made to lose has lost, and nothing else"


def test_the_readme_says_what_they_are():
    text = README.read_text(encoding="utf-8")
    assert markdown(every()) in text, "ringtape datasets --markdown writes the part between the marks"
    assert recorded_sums(text) == {one.name: one.sha256 for one in every()}
    assert written_anew(text) == written_anew(text.replace("rows", "ROWS", 3)) == text


def test_they_are_small():
    assert all(one.size < 3 * MIB for one in every())
    assert sum(file.stat().st_size for file in (ROOT / "datasets").rglob("*") if file.is_file()) < 15 * MIB


def test_no_recording_made_here_names_a_folder_of_its_maker():
    for one in every():
        if one.name in ("demo", "families", "older"):
            continue  # recorded before their scripts had a home of their own
        for trace in one.traces:
            for table, column in (("paths", "value"), ("processes", "file"), ("processes", "argv"), ("mappings", "path")):
                if table in trace.tables:
                    for part in trace.parts(table):
                        text = b"\n".join(
                            value or b"" for value in pl.read_parquet(Path(trace.path) / part.file, columns=[column])[column].cast(pl.Binary)
                        )
                        assert not re.search(rb"/(home|work)/|/root/\.(?!sqliterc)|/\.pyenv/", text), (one.name, table)


def test_the_old_format_opens_with_an_older_schema():
    old = datasets.load("older")
    assert old.header.version == "1.0"
    assert "descriptors" not in old.header.tables
    mix = syscall_mix(old)
    assert mix["calls"].sum() + mix["children"].sum() == old.rows("syscalls") == 162_553


def test_the_forced_loss_is_counted_and_located():
    trace = datasets.load("loss")
    lost = loss(trace).filter(pl.col("table") == "syscalls").row(0, named=True)
    assert lost["lost"] > 90_000
    assert lost["recorded"] + lost["lost"] == lost["attempted"]
    assert lost["unaccounted"] == 0
    begin, end = trace.span
    assert begin <= lost["since"] < lost["until"] <= end
    # dd reads and writes 60,000 bytes one by one, twice: what was recorded and what was lost come to that.
    calls = dict(syscall_mix(trace).select("syscall", "calls").rows())
    assert 120_000 <= calls["read"] < 120_500
    assert 120_000 <= calls["write"] < 120_500


def test_the_pair_shows_the_known_change():
    counts = {path.stem: dict(syscall_mix(ringtape.open(path)).select("syscall", "calls").rows())["write"] for path in datasets.paths("buffer")}
    lines = 60_000 * len(b"000000 the quick brown fox\n")
    assert {count for name, count in counts.items() if name.startswith("before")} == {3_334}
    assert {count for name, count in counts.items() if name.startswith("after")} == {-(-lines // 65_536)}
    assert len(counts) == 12


def test_the_comparison_finds_the_known_change_and_nothing_in_what_stayed():
    runs = {side: [path for path in datasets.paths("buffer") if path.stem.startswith(side)] for side in ("before", "after")}
    found = compare(ringtape.open(runs["before"]), ringtape.open(runs["after"]), measures=["calls"])
    rows = {row["what"]: row for row in found.iter_rows(named=True)}
    assert (rows["write"]["verdict"], rows["write"]["base_runs"], rows["write"]["other_runs"]) == ("fewer", 6, 6)
    assert rows["write"]["ratio"] == pytest.approx(25 / 3_334)
    assert {rows[call]["verdict"] for call in ("openat", "close", "read", "execve")} == {"no difference shown"}


def test_load_opens_by_name_and_says_what_is_there_otherwise():
    assert datasets.load("redis").header.command == ["sh", "redis.sh"]
    assert datasets.load("buffer/after-3").path.stem == "after-3"
    assert len(datasets.load("buffer")) == 12
    with pytest.raises(ringtape.RingtapeError, match="no dataset 'rediss'") as caught:
        datasets.load("rediss")
    assert caught.value.hint == "did you mean redis?"
    with pytest.raises(ringtape.RingtapeError, match="12 runs") as caught:
        datasets.path("buffer")
    assert "buffer/after-1" in caught.value.hint


def test_without_the_repository_it_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    with pytest.raises(ringtape.RingtapeError, match="no recordings") as caught:
        datasets.names()
    assert datasets.VARIABLE in caught.value.hint


def test_the_verb_lists_them_as_published():
    ringtape_command = Path(sys.executable).with_name("ringtape")
    listed = [
        json.loads(line)
        for line in subprocess.run([ringtape_command, "datasets", "--json"], capture_output=True, text=True, check=True).stdout.splitlines()
    ]
    assert [one["name"] for one in listed] == list(datasets.names())
    assert all(one["as_published"] for one in listed)
    done = subprocess.run([ringtape_command, "datasets"], capture_output=True, text=True, check=True)
    assert "postgresql" in done.stdout
    assert done.stderr == ""


def test_the_verb_names_a_recording_of_which_a_byte_was_changed(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "datasets" / "git.trace", tmp_path / "git.trace")
    for name in ("README.md", "git.sh"):
        shutil.copy(ROOT / "datasets" / name, tmp_path)
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    assert main(["datasets"]) == 0
    said = capsys.readouterr()
    assert ("as published" in said.out, said.err) == (True, "")
    part = next((tmp_path / "git.trace" / "syscalls").iterdir())
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.chmod(0o600)
    part.write_bytes(data)
    assert main(["datasets"]) == 0
    said = capsys.readouterr()
    assert "as published" not in said.out
    assert "not as published: git" in said.err
