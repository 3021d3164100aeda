"""The files beside a study file that its commands name by ``{study}/...``: they belong to it, and go where its results go."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ringtape.analysis.studies.declaration import Study
from ringtape.schemas.errors import RingtapeError

_NAMED = re.compile(r"\{study\}/([A-Za-z0-9_+-][A-Za-z0-9_.+/-]*)")
LARGEST = 16 << 20


def companions(study: Study) -> list[Path]:
    """Return the files that the study names, relative to its own folder; names of what is not there are left out.

    Raises
    ------
    RingtapeError
        If one lies outside of that folder, or is larger than 16 MiB.
    """
    base = study.path.resolve().parent
    found: set[Path] = set()
    for name in map(os.path.normpath, _NAMED.findall(study.text)):
        path = base / name
        if path.is_file():
            if not path.resolve().is_relative_to(base):
                raise RingtapeError(
                    f"{study.path}: {{study}}/{name} lies outside of the folder of the study", "keep what belongs to a study beside it"
                )
            if path.stat().st_size > LARGEST:
                raise RingtapeError(f"{study.path}: {{study}}/{name} has {path.stat().st_size:,} bytes", "what belongs to a study is at most 16 MiB")
            found.add(Path(name))
    return sorted(found)


def copy(study: Study, folder: Path) -> None:
    """Copy what belongs to a study into a folder; see `companions`."""
    base = study.path.resolve().parent
    for name in companions(study):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(base / name, folder / name)
