"""Reads the file of a study: everything that is wrong in it is named with its line before anything runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from ringtape.analysis.studies.declaration import BASELINE, Metric, Noise, Server, Study, Treatment, Workload
from ringtape.analysis.studies.treatments import tools
from ringtape.schemas.errors import UsageError
from ringtape.schemas.units import parse_duration

Path_ = tuple[str | int, ...]
LARGEST = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,39}")
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?")
_ASSIGNMENT = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_FIELD = re.compile(r"\{([a-z]+)\}")
_FIELDS = ("folder", "study", "port")


def read(path: Path) -> Study:
    """Read a study.

    Parameters
    ----------
    path : Path
        A TOML file; `ringtape study new` writes one with comments.

    Raises
    ------
    UsageError
        If it cannot be read, is no TOML, or has unknown keys or impossible values; with the line.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise UsageError(f"{path} has {size:,} bytes", f"a study file has at most {LARGEST:,}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {(os.strerror(error.errno or 0)).lower()}", "`ringtape study new FILE` writes a study file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is no UTF-8", "a TOML file is UTF-8") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Study:
    """Read a study from the text of its file; see `read`."""
    try:
        said = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: {str(error)[:200]}", "see https://toml.io for the form of the file") from None
    return _Reader(path, text).study(said)


def lines(text: str) -> Mapping[Path_, int]:
    r"""Return in which line of a TOML text each key stands; inside strings of several lines it may be deceived.

    >>> lines("a = 1\n[b]\nc.d = 2\n")[("b", "c", "d")]
    3
    """
    found: dict[Path_, int] = {}
    counts: dict[Path_, int] = {}
    table: Path_ = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = ()
            names = [part.strip("\"'") for part in _PART.findall(header[2])]
            for place, name in enumerate(names):
                table = (*table, name)
                if place == len(names) - 1 and header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                if table in counts:
                    found.setdefault(table, number)
                    table = (*table, counts[table])
            found.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            path: Path_ = table
            for part in _PART.findall(assignment[1]):
                path = (*path, part.strip("\"'"))
                found.setdefault(path, number)
    return found


class _Reader:
    """Turns what TOML says into a `Study`."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text, self._lines = path, text, lines(text)

    def _wrong(self, at: Path_, what: str, hint: str) -> NoReturn:
        known = at
        while known and known not in self._lines:
            known = known[:-1]
        line = f":{self._lines[known]}" if known else ""
        raise UsageError(f"{self._path}{line}: {what}", hint)

    def _keys(self, said: Mapping[str, Any], at: Path_, known: Sequence[str]) -> None:
        for key in said:
            if key not in known:
                close = get_close_matches(key, known, 1)
                where = f" in {_dotted(at)}" if at else ""
                self._wrong((*at, key), f"unknown key {key!r}{where}", f"did you mean {close[0]}?" if close else f"the keys are {', '.join(known)}")

    def _get(self, said: Mapping[str, Any], at: Path_, key: str, kind: type | tuple[type, ...], name: str, default: Any) -> Any:
        value = said.get(key, default)
        if key in said and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            self._wrong((*at, key), f"{_dotted((*at, key))} is {_shown(value)}", f"give {name}")
        return value

    def _text_of(self, said: Mapping[str, Any], at: Path_, key: str, default: str = "") -> str:
        value: str = self._get(said, at, key, str, "a string", default)
        if "\0" in value:
            self._wrong((*at, key), f"{_dotted((*at, key))} holds a NUL", "leave it out")
        return value

    def _choice(self, said: Mapping[str, Any], at: Path_, key: str, choices: Sequence[str], default: str) -> Any:
        value = self._text_of(said, at, key, default)
        if value not in choices:
            self._wrong((*at, key), f"{_dotted((*at, key))} is {_shown(value)}", f"give one of {', '.join(choices)}")
        return value

    def _number(self, said: Mapping[str, Any], at: Path_, key: str, least: int, most: int, default: int) -> int:
        value: int = self._get(said, at, key, int, f"a whole number from {least} to {most:,}", default)
        if not least <= value <= most:
            self._wrong((*at, key), f"{_dotted((*at, key))} is {value}", f"give a whole number from {least} to {most:,}")
        return value

    def _share(self, said: Mapping[str, Any], at: Path_, key: str, default: float) -> float:
        value = self._get(said, at, key, (int, float), "a share from 0 to 1", default)
        if not 0 <= value <= 1:
            self._wrong((*at, key), f"{_dotted((*at, key))} is {value}", "give a share from 0 to 1, such as 0.1")
        return float(value)

    def _seconds(self, said: Mapping[str, Any], at: Path_, key: str, default: float) -> float:
        if key not in said:
            return default
        value = said[key]
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise UsageError("no duration")
            seconds = parse_duration(str(value)) / 1e9
        except UsageError:
            seconds = 0.0
        if not 0 < seconds <= 7 * 24 * 3600:
            self._wrong(
                (*at, key), f"{_dotted((*at, key))} is {_shown(value)}", "give a duration above 0, such as '90s' or '5min', or seconds as a number"
            )
        return seconds

    def _words(self, said: Mapping[str, Any], at: Path_, key: str) -> tuple[str, ...]:
        value = self._get(said, at, key, list, "a list of strings", [])
        if not all(isinstance(word, str) and "\0" not in word for word in value):
            self._wrong((*at, key), f"{_dotted((*at, key))} is {_shown(value)}", "give a list of strings")
        return tuple(value)

    def _command(self, value: Any, at: Path_) -> tuple[str, ...]:
        """Read a command: a list of words, or a string that is divided as a shell divides it, and otherwise not looked at."""
        words: list[Any] = []
        if isinstance(value, str):
            try:
                words = [*shlex.split(value)]
            except ValueError as error:
                self._wrong(at, f"{_dotted(at)} is {_shown(value)}: {str(error).lower()}", "close the quotation, or give a list of strings")
        elif isinstance(value, list):
            words = value
        if not words or not all(isinstance(word, str) and "\0" not in word for word in words) or not words[0]:
            self._wrong(at, f"{_dotted(at)} is {_shown(value)}", "give a command as a string or a list of strings; for pipes, ['sh', '-c', '...']")
        for word in words:
            self._fields(word, at)
        return tuple(words)

    def _fields(self, word: str, at: Path_) -> None:
        for name in _FIELD.findall(word):
            if name not in _FIELDS and get_close_matches(name, _FIELDS, 1):
                self._wrong(at, f"{{{name}}} in {_dotted(at)} stands for nothing", f"there are {', '.join(f'{{{field}}}' for field in _FIELDS)}")

    def _commands(self, said: Mapping[str, Any], at: Path_, key: str) -> tuple[tuple[str, ...], ...]:
        """Read one command, or a list of them."""
        if key not in said:
            return ()
        value = said[key]
        if isinstance(value, list) and value and all(isinstance(one, list) for one in value):
            return tuple(self._command(one, (*at, key)) for one in value)
        return (self._command(value, (*at, key)),)

    def _tables(self, said: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any], Path_]]:
        table = self._get(said, (), key, dict, f"tables such as [{key}.NAME]", {})
        for name, value in table.items():
            at = (key, name)
            if not _NAME.fullmatch(name):
                self._wrong(at, f"{name!r} is no name", "use up to 40 letters, digits, spaces and ._+-, a letter or digit first")
            if not isinstance(value, dict):
                self._wrong(at, f"{_dotted(at)} is {_shown(value)}", f"write it as a table: [{_dotted(at)}]")
            yield name, value, at

    def study(self, said: Mapping[str, Any]) -> Study:
        keys = ("name", "question", "repetitions", "warmups", "time_limit", "cpus", "seed", "keep", "noise", "claims", "workloads", "treatments")
        self._keys(said, (), keys)
        name = self._text_of(said, (), "name", self._path.stem)
        if not _NAME.fullmatch(name):
            self._wrong(("name",), f"{_shown(name)} is no name", "use up to 40 letters, digits, spaces and ._+-, a letter or digit first")
        treatments = [self._treatment(*one) for one in self._tables(said, "treatments")]
        if all(one.name != BASELINE for one in treatments):
            treatments.insert(0, Treatment(BASELINE, BASELINE))
        treatments.sort(key=lambda one: one.name != BASELINE)
        known = [one.name for one in treatments]
        workloads = [self._workload(*one, known) for one in self._tables(said, "workloads")]
        if not workloads:
            self._wrong((), "there is no workload", "add a table such as [workloads.NAME] with a command")
        for one in treatments:
            for workload in one.only:
                if all(each.name != workload for each in workloads):
                    self._wrong(
                        ("treatments", one.name, "only"),
                        f"unknown workload {workload!r}",
                        f"the workloads are {', '.join(each.name for each in workloads)}",
                    )
        study = Study(
            name=name,
            path=self._path,
            text=self._text,
            workloads=workloads,
            treatments=treatments,
            question=self._text_of(said, (), "question"),
            repetitions=self._number(said, (), "repetitions", 1, 10_000, Study.repetitions),
            warmups=self._number(said, (), "warmups", 0, 100, Study.warmups),
            time_limit=self._seconds(said, (), "time_limit", Study.time_limit),
            cpus=self._cpus(said),
            seed=self._number(said, (), "seed", 0, 1 << 62, Study.seed),
            keep=self._choice(said, (), "keep", ("nothing", "calls", "traces"), Study.keep),
            noise=self._noise(said),
            claims=self._words(said, (), "claims"),
        )
        self._check_claims(study)
        return study

    def _check_claims(self, study: Study) -> None:
        from ringtape.analysis.studies.claims import parse_claim

        for claim in study.claims:
            try:
                parse_claim(claim, study)
            except UsageError as error:
                self._wrong(("claims",), error.what, error.hint or "")

    def _noise(self, said: Mapping[str, Any]) -> Noise:
        table = self._get(said, (), "noise", dict, "a table", {})
        self._keys(table, ("noise",), ("outside", "steal", "retries"))
        at = ("noise",)
        return Noise(
            self._share(table, at, "outside", Noise.outside),
            self._share(table, at, "steal", Noise.steal),
            self._number(table, at, "retries", 0, 100, Noise.retries),
        )

    def _cpus(self, said: Mapping[str, Any]) -> tuple[int, ...]:
        value = said.get("cpus")
        if value is None:
            return ()
        found: list[int] = []
        if isinstance(value, list) and all(isinstance(cpu, int) and not isinstance(cpu, bool) and 0 <= cpu < 65536 for cpu in value):
            found = value
        elif isinstance(value, str):
            for part in value.split(","):
                if not (span := re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)):
                    found = []
                    break
                found += range(int(span[1]), int(span[2] or span[1]) + 1)
        if not found:
            self._wrong(("cpus",), f"cpus is {_shown(value)}", "give CPUs such as '0-1,3', or a list of their numbers")
        return tuple(sorted(set(found)))

    def _treatment(self, name: str, said: Mapping[str, Any], at: Path_) -> Treatment:
        self._keys(said, at, ("tool", "options", "only"))
        tool = self._text_of(said, at, "tool", name)
        if tool not in tools():
            hint = f"the tools are {', '.join(tools())}"
            self._wrong(
                (*at, "tool") if "tool" in said else at,
                f"unknown tool {tool!r} of the treatment {name}",
                hint if "tool" in said else f"add tool = ...; {hint}",
            )
        if name == BASELINE and (tool != BASELINE or said.get("options")):
            self._wrong(at, f"the treatment {BASELINE} is the baseline, and has no tool and no options", "give this one another name")
        if tool == BASELINE and name != BASELINE:
            self._wrong(at, f"the treatment {name} has no tool", f"the baseline is there always, under the name {BASELINE}, and twice")
        options = said.get("options", [])
        words = self._command(options, (*at, "options")) if options else ()
        if tool == "command" and not words:
            self._wrong(at, f"the treatment {name} has no command line", "give it as options = ['tool', '-o', '{output}', '--', '{command}']")
        return Treatment(name, tool, words, self._words(said, at, "only"))

    def _workload(self, name: str, said: Mapping[str, Any], at: Path_, treatments: Sequence[str]) -> Workload:
        keys = (
            *("command", "servers", "setup", "teardown", "directory", "environment", "metric", "traced", "truth", "user", "needs", "packages"),
            *("treatments", "time_limit"),
        )
        self._keys(said, at, keys)
        if "command" not in said:
            self._wrong(at, f"the workload {name} has no command", "add command = ...")
        environment = self._get(said, at, "environment", dict, "a table of strings", {})
        for variable, value in environment.items():
            if not isinstance(value, str) or "\0" in value or "=" in variable or not variable:
                self._wrong((*at, "environment", variable), f"{_dotted((*at, 'environment', variable))} is {_shown(value)}", "give a string")
        chosen = self._words(said, at, "treatments")
        for treatment in chosen:
            if treatment not in treatments:
                close = get_close_matches(treatment, treatments, 1)
                hint = f"did you mean {close[0]}?" if close else f"the treatments are {', '.join(treatments)}"
                self._wrong((*at, "treatments"), f"unknown treatment {treatment!r}", hint)
        servers = self._get(said, at, "servers", list, "tables such as [[workloads.NAME.servers]]", [])
        traced = self._choice(said, at, "traced", ("all", "command", "servers"), "all")
        if traced == "servers" and not servers:
            self._wrong((*at, "traced"), f"the workload {name} has no servers to trace", "add [[workloads.NAME.servers]], or trace all")
        return Workload(
            name=name,
            command=self._command(said["command"], (*at, "command")),
            servers=tuple(self._server(one, (*at, "servers", place)) for place, one in enumerate(servers)),
            setup=self._commands(said, at, "setup"),
            teardown=self._commands(said, at, "teardown"),
            directory=self._text_of(said, at, "directory", Workload.directory),
            environment=dict(environment),
            metric=self._metric(said, at),
            traced=traced,
            truth=self._get(said, at, "truth", bool, "true or false", False),
            user=self._text_of(said, at, "user"),
            needs=self._words(said, at, "needs"),
            packages=self._text_of(said, at, "packages"),
            treatments=(BASELINE, *(one for one in chosen if one != BASELINE)) if chosen else (),
            time_limit=self._seconds(said, at, "time_limit", 0.0) or None,
        )

    def _server(self, said: Any, at: Path_) -> Server:
        if not isinstance(said, dict) or "command" not in said:
            self._wrong(at, f"{_dotted(at)} has no command", "add command = ...")
        self._keys(said, at, ("command", "ready", "stop", "patience"))

        def one(key: str) -> tuple[str, ...]:
            return self._command(said[key], (*at, key)) if key in said else ()

        return Server(one("command"), one("ready"), one("stop"), self._seconds(said, at, "patience", Server.patience))

    def _metric(self, said: Mapping[str, Any], at: Path_) -> Metric | None:
        if "metric" not in said:
            return None
        at = (*at, "metric")
        table = self._get(said, at[:-1], "metric", dict, "a table", {})
        self._keys(table, at, ("name", "regex", "json", "better", "combine"))
        regex, path = self._text_of(table, at, "regex"), self._text_of(table, at, "json")
        if bool(regex) == bool(path):
            self._wrong(
                at, f"{_dotted(at)} has {'both a regex and a json path' if regex else 'neither a regex nor a json path'}", "give one of the two"
            )
        if regex:
            try:
                groups = re.compile(regex).groups
            except (re.error, RecursionError, OverflowError) as error:
                self._wrong(
                    (*at, "regex"), f"{_dotted((*at, 'regex'))} is {_shown(regex)}: {error}", "give a regular expression as Python's re has them"
                )
            if groups != 1:
                self._wrong((*at, "regex"), f"{_dotted((*at, 'regex'))} has {groups} groups", "put one pair of parentheses around the number")
        return Metric(
            self._text_of(table, at, "name", "metric"),
            regex,
            path,
            self._choice(table, at, "better", ("higher", "lower"), "higher"),
            self._choice(table, at, "combine", ("mean", "sum", "last"), "mean"),
        )


def _dotted(at: Path_) -> str:
    return ".".join(f"{part + 1}" if isinstance(part, int) else part if re.fullmatch(r"[\w-]+", part) else json.dumps(part) for part in at)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
