"""Names of errors and signals, compared with what Python knows of this machine."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from ringtape.schemas.abi import errors
from ringtape.schemas.errors import UsageError


def test_every_error_that_python_knows_has_its_number() -> None:
    for number, name in errno.errorcode.items():
        assert errors.errno_number(name) == number
        assert errors.errno_message(-number) == os.strerror(number)


def test_every_signal_that_python_knows_has_its_number() -> None:
    for known in signal.valid_signals():
        if known < 32 and not (known == signal.SIGSTKFLT and signal.SIGSTKFLT.name != "SIGSTKFLT"):
            assert errors.signal_number(signal.Signals(known).name) == known
    assert sorted(errors.signals()) == list(range(1, 65))
    assert (errors.signal_name(9), errors.signal_name(32), errors.signal_name(34), errors.signal_name(99)) == ("SIGKILL", "SIGRTMIN", "SIGRT_2", "99")
    assert errors.signal_number("TERM") == errors.signal_number("SIGTERM") == 15


@pytest.mark.parametrize(
    ("ret", "name"),
    [(-2, "ENOENT"), (-11, "EAGAIN"), (-512, "ERESTARTSYS"), (-513, "ERESTARTNOINTR"), (-514, "ERESTARTNOHAND"), (-516, "ERESTART_RESTARTBLOCK"),
     (-4095, "E4095"), (-4096, None), (0, None), (3, None), (-(1 << 63), None)],
)  # fmt: skip
def test_a_return_value_names_its_error(ret: int, name: str | None) -> None:
    assert errors.errno_name(ret) == name


def test_no_number_and_no_name_stands_twice() -> None:
    names = [error.name for error in errors.errnos().values()]
    assert len(names) == len(set(names))
    assert {number for number in errors.errnos() if number >= 512} >= errors.RESTARTS


def test_unknown_names_are_refused_with_close_matches() -> None:
    with pytest.raises(UsageError, match="unknown error 'ENOENTT'") as caught:
        errors.errno_number("ENOENTT")
    assert "ENOENT" in str(caught.value.hint)
    with pytest.raises(UsageError, match="unknown signal 'SIGTREM'") as caught:
        errors.signal_number("SIGTREM")
    assert "SIGTERM" in str(caught.value.hint)
