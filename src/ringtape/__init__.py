"""Record what programs ask of the Linux kernel, and study the recording later.

>>> import ringtape
>>> ringtape.RingtapeError("what happened", "what to do").hint
'what to do'
"""

from typing import TYPE_CHECKING, Any

from ringtape.schemas.errors import RingtapeError
from ringtape.version import VERSION as __version__

if TYPE_CHECKING:
    from ringtape import datasets
    from ringtape.analysis.runs import Runs, open
    from ringtape.analysis.trace import Trace

__all__ = ["RingtapeError", "Runs", "Trace", "__version__", "datasets", "open"]


def __getattr__(name: str) -> Any:
    # polars takes a third of a second to import: only those who open a trace pay for it.
    if name in ("Runs", "Trace", "open"):
        from ringtape.analysis import runs

        return getattr(runs, name)
    if name == "datasets":
        from importlib import import_module

        return import_module("ringtape.datasets")
    raise AttributeError(f"module 'ringtape' has no attribute {name!r}")
