"""Lines of a text file that may be of any size, hold anything, or come from a pipe."""

from __future__ import annotations

import gzip
import os
import stat
import sys
from collections.abc import Iterator
from typing import IO

from ringtape.schemas.errors import RingtapeError

LONGEST = 1 << 20
"""Characters of a line that are kept: no tool writes longer ones unless told to print megabytes of data."""


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line; of one that is too long, the beginning.

    Parameters
    ----------
    path : str
        File, also compressed by gzip; ``-`` is standard input.

    Raises
    ------
    RingtapeError
        If it cannot be read.
    """
    try:
        with _open(path) as file:
            number = 0
            while line := file.readline(LONGEST):
                number += 1
                if len(line) == LONGEST and not line.endswith(b"\n"):
                    while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
                        pass
                yield number, line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    except (EOFError, gzip.BadGzipFile) as error:
        raise RingtapeError(
            f"{path}: damaged or cut off: {str(error).lower()}", "decompress it with `gzip -dc`, which gives what can be read"
        ) from None
    except OSError as error:
        raise RingtapeError(f"{path}: {(error.strerror or str(error)).lower()}", "name a file that you may read, or - for standard input") from None


def _open(path: str) -> IO[bytes]:
    if path == "-":
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    file = open(path, "rb")  # noqa: SIM115 - given to the caller
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        magic = file.read(2)
        file.seek(0)
        if magic == b"\x1f\x8b":
            return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    return file
