"""Making the trace folder: private, new, and where nobody else can exchange it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ringtape.schemas.errors import RecordingError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def create_folder(path: Path) -> int:
    """Make a new, private trace folder and return its descriptor.

    Raises
    ------
    RecordingError
        If the name is taken (also by a link), the parent is missing or not writable, or others may rename what is in it.
    """
    parent = path.parent
    try:
        above = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RecordingError(f"{parent}: {os.strerror(error.errno or 0).lower()}", "name an existing folder for the trace with --output") from None
    try:
        mode = os.fstat(above).st_mode
        if mode & 0o002 and not mode & stat.S_ISVTX:
            raise RecordingError(
                f"{parent}: others may rename what lies in this folder (mode {stat.S_IMODE(mode):o})",
                f"choose another with --output, or run: chmod o-w {parent}",
            )
        try:
            os.mkdir(path.name, 0o700, dir_fd=above)
        except FileExistsError:
            what = "is a symbolic link" if path.is_symlink() else "exists already"
            raise RecordingError(f"{path} {what}", "a trace is never overwritten: name another with --output, or remove it") from None
        except OSError as error:
            raise RecordingError(f"{path}: {os.strerror(error.errno or 0).lower()}", "choose a folder that you may write to with --output") from None
        descriptor = os.open(path.name, _FOLDER, dir_fd=above)
    finally:
        os.close(above)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        os.close(descriptor)
        raise RecordingError(f"{path} was replaced while it was made", "someone else writes to its parent folder: choose another")
    return descriptor
