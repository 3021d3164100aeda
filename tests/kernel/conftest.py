"""Compiled test programs, and recorders that never outlive their test."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.kernel.diary", "tests.kernel.recording")

from tests.kernel.diary import Diary  # noqa: E402
from tests.kernel.recording import Done, Recorder, check_quiet  # noqa: E402

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session", autouse=True)
def signals_as_they_come() -> Iterator[None]:
    """Recorders get the signals that tests send them also where these tests are run by nohup or in the background of a script."""
    ignored = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter (pytest's own is closed to all but root)."""
    folder = Path(tempfile.mkdtemp(prefix="ringtape-kernel-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def programs(open_folder: Path) -> Callable[[str], Path]:
    """Compile a program of this folder, once."""
    made: dict[str, Path] = {}

    def program(name: str) -> Path:
        if name not in made:
            if shutil.which("gcc") is None:
                pytest.skip("gcc is not installed")
            path = open_folder / name
            flags = ["-static", "-O1", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter"]
            subprocess.run(["gcc", *flags, "-o", path, PROGRAMS / f"{name}.c"], check=True, timeout=120)
            made[name] = path
        return made[name]

    return program


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    """Start recorders; those that still run at the end of the test are killed."""
    with contextlib.ExitStack() as stack:
        count = 0

        def start_one(*arguments: str | bytes | Path, path: Path | None = None, **options: Any) -> Recorder:
            nonlocal count
            count += 1
            return stack.enter_context(Recorder(path or tmp_path / f"{count}.trace", arguments, **options))

        yield start_one


@pytest.fixture
def record(start: Callable[..., Recorder]) -> Callable[..., Done]:
    """Record to the end."""

    def record_one(*arguments: str | bytes | Path, **options: Any) -> Done:
        done = start(*arguments, **options).wait()
        check_quiet(done)
        return done

    return record_one


@pytest.fixture
def diary(open_folder: Path) -> Diary:
    """An empty diary that programs of every user may write."""
    return Diary(open_folder / f"diary-{uuid.uuid4().hex}")
