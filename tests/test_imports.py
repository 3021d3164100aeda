"""What imports what: the layers, the folders under their bare names, and what `ringtape --help` may not load."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("numpy", "pyarrow", "polars", "scipy", "matplotlib", "rich")
RINGTAPE = "import sys; from ringtape.cli import main; status = main(); "


def python(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("layer", ["schemas", "recorder", "analysis"])
def test_a_layer_refuses_to_be_imported_under_its_bare_name(layer):
    done = python("-c", f"import {layer}")
    assert done.returncode == 1
    assert f"ImportError: this folder is the package ringtape.{layer}; it was imported as '{layer}'" in done.stderr


@pytest.mark.parametrize("layer", ["schemas", "recorder", "analysis"])
def test_a_file_of_the_users_with_the_same_name_is_the_users(layer, tmp_path):
    (tmp_path / f"{layer}.py").write_text("WHOSE = 'the user'\n")
    code = f"import {layer}, ringtape.{layer} as ours; print({layer}.WHOSE, ours.__name__, hasattr(ours, 'WHOSE'))"
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout.split("\n")[0] == f"the user ringtape.{layer} False", done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["no-such-verb"]], ids=lambda words: words[0])
def test_the_command_line_itself_loads_nothing_heavy(arguments):
    done = python("-c", RINGTAPE + f"import json; json.dump([name for name in {HEAVY} if name in sys.modules], sys.stderr)", *arguments)
    assert json.loads(done.stderr.splitlines()[-1]) == []


@pytest.mark.parametrize("verb", ["report", "info"])
def test_no_verb_loads_pandas_which_pyarrow_does_where_it_is_installed(verb):
    done = python("-c", RINGTAPE + "print('pandas' in sys.modules, status, file=sys.stderr)", verb, "datasets/demo.trace")
    assert done.stderr.splitlines()[-1] == "False 0"


def test_the_public_package_loads_polars_only_for_those_who_open_a_trace():
    done = python("-c", f"import sys, ringtape; print([name for name in {HEAVY} if name in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


def test_the_import_rules_of_pyproject_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_has_grown_beyond_its_limit_or_a_name_that_says_nothing():
    files = [path for layer in ("schemas", "recorder", "analysis", "src/ringtape") for path in (ROOT / layer).rglob("*.py")]
    assert len(files) > 10
    for path in files:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
