"""The command line: one message and one exit status per error, whatever the terminal does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringtape import cli
from ringtape.schemas.errors import RingtapeError, TraceError, UsageError
from ringtape.version import VERSION

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "import sys; from ringtape.cli import main; sys.exit(main())"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def ringtape(*arguments, **options):
    return subprocess.run([*COMMAND, *arguments], env=ENVIRONMENT, text=True, timeout=60, check=False, **options)


@pytest.fixture
def verb(monkeypatch):
    """A verb `try` that does what the test says."""

    def install(run):
        monkeypatch.setattr(cli, "verbs", lambda: {"try": cli.Verb("try", "ringtape.recorder.commands.try", Path(__file__), lambda parser: run)})

    return install


def raiser(error):
    def run(arguments):
        raise error

    return run


def test_help_lists_every_verb_with_its_sentence():
    done = ringtape("--help", capture_output=True)
    assert done.returncode == 0
    for name, found in cli.verbs().items():
        assert f"  {name:<15} {found.summary}" in done.stdout
        assert found.summary, name


def test_no_verb_at_all_is_usage():
    done = ringtape(capture_output=True)
    assert done.returncode == 2
    assert done.stdout.startswith("usage: ringtape")


def test_version():
    assert ringtape("--version", capture_output=True).stdout == f"ringtape {VERSION}\n"


def test_an_unknown_verb_is_one_error_with_a_hint():
    done = ringtape("frobnicate", capture_output=True)
    assert done.returncode == 2
    assert done.stderr == "ringtape: error: unknown verb 'frobnicate'\nhint: `ringtape --help` lists the verbs\n"


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (UsageError("no such table", "try syscalls"), 2, "ringtape: error: no such table\nhint: try syscalls\n"),
        (TraceError("x: damaged"), 1, "ringtape: error: x: damaged\n"),
        (RingtapeError("a\x1b[31m\nb"), 1, "ringtape: error: a\\x1b[31m\\nb\n"),
        (PermissionError(13, "Permission denied", "/a\nb"), 1, "ringtape: error: /a\\nb: permission denied\n"),
        (OSError(28, "No space left on device"), 1, "ringtape: error: no space left on device\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_one_message_and_an_exit_status(verb, capsys, error, status, shown):
    verb(raiser(error))
    assert cli.main(["try"]) == status
    assert capsys.readouterr().err == shown


def test_the_status_of_the_verb_is_the_status_of_the_command(verb):
    verb(lambda arguments: 42)
    assert cli.main(["try"]) == 42
    assert cli.main(["try", "--no-such-option"]) == 2


def test_a_reader_that_has_gone_ends_the_command_without_a_word():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = ringtape("--help", stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_under_the_output_is_one_error():
    with open("/dev/full", "w") as full:
        done = ringtape("--help", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "ringtape: error: no space left on device\n")


def test_closed_streams_do_no_harm():
    done = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *COMMAND, "--help"], env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == 0


def test_an_encoding_without_our_letters_is_no_reason_to_fail():
    done = subprocess.run([*COMMAND, "µ"], env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=60, check=False)
    assert done.stderr.startswith(b"ringtape: error: unknown verb '\\xb5'")
