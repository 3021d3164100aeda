"""A wheel, unpacked anywhere, is the whole of ringtape: the three linked folders and every data file in them."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("schemas", "recorder", "analysis")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", *LAYERS):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tree)
    (tree / "README.md").write_text("# ringtape\n")
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=tree, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / done.stdout.splitlines()[-1]) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_file_of_the_three_layers_is_in_it(wheel):
    for layer in LAYERS:
        ours = {path.relative_to(ROOT) for path in (ROOT / layer).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        theirs = {path.relative_to(wheel / "ringtape") for path in (wheel / "ringtape" / layer).rglob("*") if path.is_file()}
        assert ours == theirs
    assert not [path.name for path in wheel.iterdir() if path.name in (*LAYERS, "tests")], "nothing lies outside of the package ringtape"


def test_it_runs_where_there_is_no_checkout(wheel, tmp_path):
    code = "import ringtape.cli, ringtape.schemas.table as t; ringtape.cli.main(['--help']); print(*t.tables()); print(ringtape.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    *_, names, file = done.stdout.splitlines()
    assert "syscalls" in names.split()
    assert Path(file).is_relative_to(wheel)
    assert "doctor" in done.stdout
