"""The one family of errors that ringtape raises."""

from __future__ import annotations


class RingtapeError(Exception):
    """What went wrong, as a sentence that starts in lower case, and what to do next.

    Parameters
    ----------
    what : str
        The fact: which thing, which value.
    hint : str, optional
        The next step for the person who reads it.
    """

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return self.what if self.hint is None else f"{self.what}\nhint: {self.hint}"


class UsageError(RingtapeError):
    """The command line or an argument of a call asks for something that does not exist or does not fit."""


class TraceError(RingtapeError):
    """A trace folder, its manifest or one of its parts is not what it claims to be."""


class PrivilegeError(RingtapeError):
    """Recording was refused by the kernel because this process may not load BPF programs."""


class RecordingError(RingtapeError):
    """A recording could not be started, carried on or completed."""
