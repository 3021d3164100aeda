"""The command line: finds the verbs, and turns errors into one message and an exit status in one place."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from ringtape.schemas.errors import RingtapeError, UsageError
from ringtape.version import VERSION

PACKAGE = Path(__file__).parent
FAILURE, USAGE, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class Verb:
    """A verb that was found, and where it lies."""

    name: str
    module: str
    path: Path
    load: Callable[[argparse.ArgumentParser], Callable[[argparse.Namespace], int]]

    @property
    def summary(self) -> str:
        """Its first sentence, read without importing it."""
        # The first line of a file is that of its docstring. To parse all of fifty files takes longer than anything else here.
        with open(self.path, encoding="utf-8") as file:
            return file.readline().strip().lstrip("r").strip('"').rstrip(".")

    def parser(self) -> tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int]]:
        """Import it, and return what reads its arguments and what does it."""
        parser = _Parser(
            prog=f"ringtape {self.name}",
            description=self.summary + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        return parser, self.load(parser)


def _command(module: str) -> Callable[[argparse.ArgumentParser], Callable[[argparse.Namespace], int]]:
    def load(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
        command = import_module(module)
        command.add_arguments(parser)
        run: Callable[[argparse.Namespace], int] = command.run
        return run

    return load


def _analysis(name: str) -> Callable[[argparse.ArgumentParser], Callable[[argparse.Namespace], int]]:
    def load(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
        verb = import_module("ringtape.analysis.verb")
        verb.add_arguments(parser, name)
        run: Callable[[argparse.Namespace], int] = verb.run
        return run

    return load


def verbs() -> dict[str, Verb]:
    """Find every verb: one file per verb in the ``commands`` folders, one file per analysis in ``analysis/analyses``."""

    def found() -> Iterator[Verb]:
        for layer in ("recorder", "analysis"):
            for path in sorted((PACKAGE / layer / "commands").glob("[a-z]*.py")):
                module = f"ringtape.{layer}.commands.{path.stem}"
                yield Verb(path.stem.replace("_", "-"), module, path, _command(module))
        for path in sorted((PACKAGE / "analysis" / "analyses").glob("[a-z]*.py")):
            yield Verb(path.stem.replace("_", "-"), f"ringtape.analysis.analyses.{path.stem}", path, _analysis(path.stem))

    return {verb.name: verb for verb in found()}


def _overview(found: dict[str, Verb]) -> str:
    def listing(part: str) -> str:
        return "\n".join(f"  {verb.name:<15} {verb.summary}" for verb in found.values() if part in verb.module)

    return f"""usage: ringtape VERB [options]

Record what programs ask of the Linux kernel, and study the recording later.

record:
{listing(".recorder.")}

study a trace:
{listing(".analysis.commands.")}

analyses (each with --format table|csv|json|parquet|markdown):
{listing(".analyses.")}

`ringtape VERB --help` explains one verb; `ringtape --version` prints the version."""


class _WithoutPandas:
    """Lets the import of pandas fail, in this program only.

    pyarrow imports it, wherever it is installed, to ask of a list whether it is a Series: a third of the recorder's start, in a
    process that holds privileges. None in `sys.modules` does not do: pyarrow's compiled import takes it for the module.
    """

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(f"{name} is not used by ringtape", name=name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0, 1 for an error, 2 for usage, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        sys.meta_path.insert(0, _WithoutPandas())
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # An encoding without the micro sign, say, must not end a report half-way.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except UsageError as error:
        return _complain(error, USAGE)
    except RingtapeError as error:
        return _complain(error, FAILURE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): end as any filter does, without a word.
        _discard_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        _discard_output()
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return _complain(RingtapeError(f"{name}{(error.strerror or str(error)).lower()}"), FAILURE)


def _replace_closed_streams() -> None:
    """Put the null device where the caller closed a stream (`>&-`): else the next file that is opened gets its number, and its output."""
    for number, (name, flags) in enumerate((("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, flags)
            if null != number:
                os.dup2(null, number, inheritable=False)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w" if flags else "r", encoding="utf-8", closefd=False))


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview(verbs()))
        return 0 if arguments else USAGE
    if arguments[0] in ("-V", "--version"):
        print(f"ringtape {VERSION}")
        return 0
    name = arguments[0]
    found = verbs()
    if name not in found:
        from difflib import get_close_matches

        close = get_close_matches(name, found, 3)
        raise UsageError(f"unknown verb {name!r}", f"did you mean {' or '.join(close)}?" if close else "`ringtape --help` lists the verbs")
    parser, run = found[name].parser()
    try:
        status = run(parser.parse_args(arguments[1:]))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    return status


class _Parser(argparse.ArgumentParser):
    """Complains as everything else does: one error, one hint."""

    def error(self, message: str) -> NoReturn:
        hint = f"`{self.prog} --help` lists the options"
        if " -- " in (self.usage or ""):
            hint = f"a command to run comes after `--`; {hint}"
        raise UsageError(message, hint)


def _discard_output() -> None:
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        # What is still buffered would fail again while the interpreter ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error: RingtapeError, status: int) -> int:
    from ringtape.schemas.escape import escape

    try:
        print(f"ringtape: error: {escape(error.what)}", file=sys.stderr)
        if error.hint:
            print(f"hint: {escape(error.hint)}", file=sys.stderr)
    except OSError:
        pass  # the terminal is gone; the exit status still tells
    return status
