"""What every analysis says of every recording of the repository, kept small enough to be read in a diff.

`python -m tests.analysis.golden [NAME ...]` writes tests/golden anew; what changed is then read, line by line, before it is committed.
"""

import hashlib
import json
import math
import sys
from pathlib import Path
from unittest import mock

import ringtape
from ringtape import datasets
from ringtape.analysis import registry
from ringtape.analysis.symbols import Symbols

FOLDER = Path(__file__).parents[1] / "golden"
SHOWN = 3
SMALL = 1e-9


def results(name):
    """Return what every analysis says of a recording, by the analysis' name."""
    # Names of functions come from the files of this machine, which are not those of the next one.
    with mock.patch.object(Symbols, "_candidates", return_value=()):
        trace = datasets.load(name)
        return {analysis: told(trace, one) for analysis, one in registry.every().items()}


def told(trace, analysis):
    """Return the result of an analysis, or why there is none."""
    try:
        frame = analysis.function(trace)
    except ringtape.RingtapeError as error:
        return {"refuses": error.what.replace(str(datasets.folder().resolve()), "datasets").replace(str(datasets.folder()), "datasets")}
    floats = [column for column, dtype in frame.schema.items() if dtype.is_float()]
    # Rows whose order is left open (equal keys) may come in any: sorted, they are the same.
    rest = frame.drop(floats)
    lines = sorted(json.dumps(row, default=str) for row in rest.rows())
    return {
        "columns": {column: str(dtype) for column, dtype in frame.schema.items()},
        "rows": len(frame),
        "first": [[round_off(value) for value in row] for row in frame.head(SHOWN).rows()],
        "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16],
        "floats": {column: condensed(frame[column]) for column in floats},
    }


def condensed(values):
    """Return of a column of floats how many have no value, how many are finite, and the sum, the least and the greatest of these."""
    finite = values.filter(values.is_finite())
    return [values.null_count(), len(finite), *(round_off(value) for value in (finite.sum(), finite.min(), finite.max()))]


def round_off(value):
    """Return a value as JSON keeps it."""
    if isinstance(value, float):
        return None if not math.isfinite(value) else float(f"{value:.9g}")
    return value if isinstance(value, int | str | bool | None) else str(value)


def same(found, expected):
    """Whether two results are the same: floats to nine digits or so, everything else exactly."""
    if isinstance(found, float) and isinstance(expected, float | int):
        return math.isclose(found, expected, rel_tol=1e-6, abs_tol=SMALL)
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in found)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


def write(name):
    """Write the golden results of a recording."""
    FOLDER.mkdir(exist_ok=True)
    lines = ",\n".join(f"{json.dumps(analysis)}: {json.dumps(result)}" for analysis, result in results(name).items())
    (FOLDER / f"{name}.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    for each in sys.argv[1:] or datasets.names():
        write(each)
