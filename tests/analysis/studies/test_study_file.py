"""What a study file says, and what is said of a wrong one: the line, the value, and what to do."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringtape.analysis.studies.declaration import Metric, Noise, Server
from ringtape.analysis.studies.study_file import LARGEST, lines, parse, read
from ringtape.cli import main
from ringtape.schemas.errors import UsageError

WHOLE = """
name = "servers"
question = "how much?"
repetitions = 7
warmups = 0
time_limit = "90s"
cpus = "0-1,3"
seed = 5
keep = "traces"

[noise]
outside = 0.2
retries = 0

[workloads.redis]
command = "redis-benchmark -p {port} 'a b'"
setup = [["mkdir", "{folder}/a"], ["mkdir", "{folder}/b"]]
teardown = "rm -r {folder}/a"
environment = { A = "{port}" }
user = "nobody"
treatments = ["mine"]
time_limit = 5
[workloads.redis.metric]
name = "requests/s"
regex = "([0-9]+)"
[[workloads.redis.servers]]
command = ["redis-server", "--port", "{port}"]
ready = "redis-cli ping"
patience = "3s"
[[workloads.redis.servers]]
command = "other"

[workloads."a loop"]
command = "true"
truth = true

[treatments.mine]
tool = "command"
options = ["nice", "{command}"]
[treatments.ringtape]
options = "--tables all"
only = ["a loop"]
"""


def test_everything_that_a_file_says_is_in_the_study(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(WHOLE)
    study = read(path)
    assert (study.name, study.question, study.repetitions, study.warmups, study.time_limit) == ("servers", "how much?", 7, 0, 90)
    assert (study.cpus, study.seed, study.keep, study.text) == ((0, 1, 3), 5, "traces", WHOLE)
    assert study.noise == Noise(0.2, Noise.steal, 0)
    redis, loop = study.workloads
    assert redis.command == ("redis-benchmark", "-p", "{port}", "a b")
    assert redis.setup == (("mkdir", "{folder}/a"), ("mkdir", "{folder}/b"))
    assert redis.teardown == (("rm", "-r", "{folder}/a"),)
    assert redis.servers == (Server(("redis-server", "--port", "{port}"), ("redis-cli", "ping"), (), 3.0), Server(("other",)))
    assert redis.metric == Metric("requests/s", "([0-9]+)")
    assert (redis.user, redis.time_limit, redis.environment) == ("nobody", 5, {"A": "{port}"})
    assert (loop.name, loop.truth) == ("a loop", True)
    assert [one.name for one in study.treatments] == ["none", "mine", "ringtape"]
    assert [one.name for one in study.treatments_of(redis)] == ["none", "mine"]
    assert [one.name for one in study.treatments_of(loop)] == ["none", "mine", "ringtape"]
    assert study.treatments[2].options == ("--tables", "all")


WORK = '[workloads.a]\ncommand = "true"\n'
WRONG = {
    "no TOML": ("a = [", "s.toml: ", "toml.io"),
    "no workload": ("", "no workload", "[workloads.NAME]"),
    "unknown key": (WORK + "comand = 1", ":3: unknown key 'comand' in workloads.a", "did you mean command?"),
    "unknown key at the top": ("repititions = 3\n" + WORK, ":1: unknown key 'repititions'", "repetitions"),
    "no command": ("[workloads.a]\n", ":1: the workload a has no command", "command"),
    "empty command": ("[workloads.a]\ncommand = []", ":2: workloads.a.command is []", "a list of strings"),
    "open quotation": ('[workloads.a]\ncommand = "a \'b"', ":2: workloads.a.command", "close the quotation"),
    "NUL": ('[workloads.a]\ncommand = ["a\\u0000"]', ":2: workloads.a.command", ""),
    "repetitions": ("repetitions = 0\n" + WORK, ":1: repetitions is 0", "from 1 to 10,000"),
    "repetitions as text": ('repetitions = "3"\n' + WORK, ':1: repetitions is "3"', "whole number"),
    "repetitions as truth": ("repetitions = true\n" + WORK, ":1: repetitions is true", "whole number"),
    "duration": ('time_limit = "soon"\n' + WORK, ':1: time_limit is "soon"', "'90s'"),
    "negative duration": ("time_limit = -1\n" + WORK, ":1: time_limit is -1", "above 0"),
    "cpus": ('cpus = "0-"\n' + WORK, ':1: cpus is "0-"', "'0-1,3'"),
    "keep": ('keep = "all"\n' + WORK, ':1: keep is "all"', "nothing, calls, traces"),
    "noise": ("[noise]\noutside = 2\n" + WORK, ":2: noise.outside is 2", "from 0 to 1"),
    "name": ('[workloads."a/b"]\ncommand = "true"', "'a/b' is no name", ""),
    "tool": (WORK + "[treatments.starce]\n", ":3: unknown tool 'starce'", "add tool"),
    "baseline with a tool": (WORK + '[treatments.none]\ntool = "ringtape"', ":3: the treatment none is the baseline", "another name"),
    "second baseline": (WORK + '[treatments.other]\ntool = "none"', ":3: the treatment other has no tool", "twice"),
    "no command line": (WORK + '[treatments.mine]\ntool = "command"', ":3: the treatment mine has no command line", "{output}"),
    "unknown treatment": (WORK + 'treatments = ["ringtpe"]\n[treatments.ringtape]', ":3: unknown treatment 'ringtpe'", "did you mean ringtape?"),
    "unknown workload": (WORK + '[treatments.ringtape]\nonly = ["b"]', ":4: unknown workload 'b'", "are a"),
    "no servers": (WORK + 'traced = "servers"', ":3: the workload a has no servers", "all"),
    "server without command": (WORK + '[[workloads.a.servers]]\nready = "x"', ":3: workloads.a.servers.1 has no command", "command"),
    "unknown key of a server": (WORK + '[[workloads.a.servers]]\ncommand = "x"\nred = 1', ":5: unknown key 'red' in workloads.a.servers.1", "ready"),
    "field": (WORK.replace("true", "x {folde}"), ":2: {folde} in workloads.a.command stands for nothing", "{folder}"),
    "metric of nothing": (WORK + "[workloads.a.metric]\n", ":3: workloads.a.metric has neither", "one of the two"),
    "metric of both": (WORK + '[workloads.a.metric]\nregex = "(1)"\njson = "a"', ":3: workloads.a.metric has both", "one of the two"),
    "regex": (WORK + '[workloads.a.metric]\nregex = "("', ":4: workloads.a.metric.regex", "regular expression"),
    "groups": (WORK + '[workloads.a.metric]\nregex = "1"', ":4: workloads.a.metric.regex has 0 groups", "parentheses"),
    "environment": (WORK + "environment = { A = 1 }", ":3: workloads.a.environment.A is 1", "a string"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_with_line_and_value_and_hint(what, tmp_path):
    text, said, hint = WRONG[what]
    with pytest.raises(UsageError) as error:
        parse(text, tmp_path / "s.toml")
    assert said in error.value.what
    assert hint in (error.value.hint or "")
    assert "\n" not in error.value.what


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(UsageError, match="no UTF-8"):
        read(tmp_path / "binary.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(UsageError, match="has 1,048,577 bytes"):
        read(tmp_path / "large.toml")
    with pytest.raises(UsageError):
        parse("a = " + "[" * 20_000 + "]" * 20_000, tmp_path / "deep.toml")


@given(st.text(alphabet="ab[]{}=\"'\n.# 1,", max_size=80))
def test_no_text_makes_the_reader_stumble(tmp_path_factory, text):
    with contextlib.suppress(UsageError):
        parse(text, tmp_path_factory.getbasetemp() / "s.toml")


def test_lines_are_found_in_tables_lists_of_tables_and_dotted_keys():
    text = '# a\na.b = 1\n[t."x y"]\nk = 1 # [no]\n[[t.l]]\nk = 1\n\n[[t.l]]\nk = 2\n[t.l.sub]\nz = 1\n'
    found = lines(text)
    assert found["a", "b"] == 2
    assert found["t", "x y"] == 3
    assert found["t", "x y", "k"] == 4
    assert (found["t", "l", 0, "k"], found["t", "l", 1, "k"]) == (6, 9)
    assert found["t", "l", 1, "sub", "z"] == 11


def test_the_template_that_is_written_is_a_study(tmp_path):
    assert main(["study", "new", str(tmp_path / "s.toml")]) == 0
    study = read(tmp_path / "s.toml")
    assert [one.name for one in study.workloads] == ["tar", "redis"]
    assert study.claims
    assert main(["study", "new", str(tmp_path / "s.toml")]) == 2


def test_the_studies_in_the_repository_can_be_read_and_name_their_packages():
    studies = Path(__file__).parents[3] / "datasets" / "studies"
    assert {path.name for path in studies.glob("*.toml")} == {"accuracy.toml", "families.toml", "overhead.toml"}
    for path in studies.glob("*.toml"):
        study = read(path)
        assert study.claims
        assert all(work.packages or work.name in ("tar", "shell", "python start") or work.truth for work in study.workloads)
