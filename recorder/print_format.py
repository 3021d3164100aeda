"""The ``print fmt`` of a tracepoint: what it tells of the meaning of values, without running what it says.

It is a C expression list: a format string and its arguments. Constants are computed, references to fields followed through
casts, shifts and masks; whatever else stands there is passed over. The text is that of the kernel, but it is read with bounds,
as one that is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ringtape.schemas.events import SYMBOLS_LIMIT, Show, Symbols

TEXT_LIMIT = 1 << 16
DEPTH_LIMIT = 200
_ALL = (1 << 64) - 1

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\.)*")|(?P<char>'(?:[^'\\]|\\.)')
    |(?P<number>0[xX][0-9a-fA-F]+|[0-9]+)[uUlL]*\b|(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>->|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>?:=(){}\[\],.;@\#$`\\])
    )""",
    re.VERBOSE,
)
_CONVERSION = re.compile(
    r"%(?P<flags>[-+ #0]*)(?P<width>\*|[0-9]*)(?:\.(?P<precision>\*|[0-9]*))?(?:hh|h|ll|l|z|j|t|L)?(?P<kind>[diouxXcspn%])(?P<more>[A-Za-z0-9]*)"
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "e": "\x1b", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_PRECEDENCE = (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"), ("+", "-"), ("*", "/", "%"))
_TABLES = {"__print_symbolic": False, "__print_symbolic_u64": False, "__print_flags": True, "__print_flags_u64": True}
_TYPE_WORDS = frozenset(("const", "volatile", "signed", "unsigned", "struct", "union", "enum"))


@dataclass(frozen=True)
class _Ref:
    """``(field >> shift) & mask`` of a field."""

    name: str
    shift: int = 0
    mask: int = _ALL


@dataclass(frozen=True)
class _Text:
    value: str


@dataclass(frozen=True)
class _Braces:
    """What stands in ``{ }``: a value and its name."""

    items: tuple[object, ...]


_Value = int | _Ref | _Text | _Braces | None


@dataclass
class Meaning:
    """What a ``print fmt`` says of the fields of an event, by their names; ``unknown`` are names of constants without a value."""

    symbols: dict[str, Symbols] = field(default_factory=dict)
    shows: dict[str, Show] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)


class _ForeignError(Exception):
    """The text is not an expression that is understood."""


def parse_print_format(text: str, constants: Mapping[str, int] = MappingProxyType({})) -> Meaning:
    """Return what a ``print fmt`` tells; what it does not tell in a form that is understood is left out, never an error.

    ``constants`` holds the values of the kernel's enumerators, which many formats name instead of writing their values.

    >>> found = parse_print_format('"vec=%u [action=%s]", REC->vec, __print_symbolic(REC->vec, { 0, "HI" }, { 1, "TIMER" })')
    >>> found.symbols["vec"].names
    ((0, 'HI'), (1, 'TIMER'))
    """
    meaning = Meaning()
    if len(text) > TEXT_LIMIT:
        return meaning
    parser = _Parser(text, meaning, constants)
    try:
        arguments = parser.arguments()
    except _ForeignError:
        arguments = []  # tables that were complete before what is not understood are kept
    if arguments and isinstance(arguments[0], _Text):
        _look_at(arguments[0].value, arguments[1:], meaning)
    return meaning


def _look_at(form: str, arguments: list[_Value], meaning: Meaning) -> None:
    """Pair the conversions of a format string with the arguments that they print."""
    waiting = iter(arguments)
    for conversion in _CONVERSION.finditer(form):
        if conversion["kind"] == "%":
            continue
        for part in ("width", "precision"):
            if conversion[part] == "*":
                next(waiting, None)
        argument = next(waiting, None)
        if isinstance(argument, _Ref) and argument == _Ref(argument.name) and (show := _show(conversion["kind"], conversion["more"])):
            meaning.shows.setdefault(argument.name, show)


def _show(kind: str, more: str) -> Show:
    if kind in "xX":
        return "hex"
    if kind == "o":
        return "oct"
    if kind == "p":
        prefixes: tuple[tuple[str, Show], ...] = (("I4", "ipv4"), ("i4", "ipv4"), ("I6", "ipv6"), ("i6", "ipv6"), ("M", "mac"), ("U", "uuid"))
        return next((show for prefix, show in prefixes if more.startswith(prefix)), "hex")
    return ""


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            if text[position:].strip():
                raise _ForeignError
            return
        position = match.end()
        kind = match.lastgroup or ""
        yield kind, match[kind]


class _Parser:
    """A recursive descent over the tokens; every step takes one at least, and the depth is bounded."""

    def __init__(self, text: str, meaning: Meaning, constants: Mapping[str, int]) -> None:
        self._meaning = meaning
        self._constants = constants
        self._depth = 0
        self._at = 0
        self._tokens: list[tuple[str, str]] = []
        try:
            self._tokens.extend(_tokens(text))
        except _ForeignError:
            self._tokens = []

    def _peek(self, ahead: int = 0) -> tuple[str, str]:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ("end", "")

    def _take(self, sign: str | None = None) -> tuple[str, str]:
        token = self._peek()
        if token[0] == "end" or (sign is not None and token != ("sign", sign)):
            raise _ForeignError
        self._at += 1
        return token

    def _accept(self, sign: str) -> bool:
        found = self._peek() == ("sign", sign)
        self._at += found
        return found

    def arguments(self, end: str = "") -> list[_Value]:
        """Parse expressions between commas, up to a closing sign or the end."""
        found: list[_Value] = []
        closing = ("sign", end) if end else ("end", "")
        while self._peek() != closing:
            found.append(self._expression())
            if not self._accept(","):
                break
        if end:
            self._take(end)
        return found

    def _expression(self) -> _Value:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise _ForeignError
        value = self._binary(0)
        if self._accept("?"):
            self._expression()
            self._take(":")
            self._expression()
            value = None
        self._depth -= 1
        return value

    def _binary(self, level: int) -> _Value:
        if level == len(_PRECEDENCE):
            return self._unary()
        left = self._binary(level + 1)
        while self._peek()[0] == "sign" and self._peek()[1] in _PRECEDENCE[level]:
            sign = self._take()[1]
            left = _compute(sign, left, self._binary(level + 1))
        return left

    def _unary(self) -> _Value:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise _ForeignError
        try:
            kind, text = self._peek()
            if kind == "sign" and text in ("-", "+", "~", "!", "&", "*"):
                self._take()
                return _apply(text, self._unary())
            if kind == "sign" and text == "(" and self._is_cast():
                while not self._accept(")"):
                    self._take()
                return self._unary()
            return self._postfix(self._primary())
        finally:
            self._depth -= 1

    def _is_cast(self) -> bool:
        """Look for words and stars in parentheses, with an operand behind them; enumerators there have no value for us anyway."""
        ahead, words = 1, 0
        while (token := self._peek(ahead))[0] == "name" or token == ("sign", "*"):
            if token[1] == "REC" or self._peek(ahead + 1) == ("sign", "("):
                return False
            words += token[0] == "name"
            ahead += 1
        if not words or token != ("sign", ")"):
            return False
        kind, text = self._peek(ahead + 1)
        typed = any(self._peek(index)[1] in (*_TYPE_WORDS, "*") for index in range(1, ahead))
        return typed or kind in ("name", "number", "text", "char") or text in ("(", "~", "!", "{")

    def _primary(self) -> _Value:
        kind, text = self._take()
        if kind == "number":
            try:
                return int(text, 8 if text[0] == "0" and text[1:].isdigit() else 0) & _ALL
            except ValueError:
                raise _ForeignError from None
        if kind == "char":
            value = _unescaped(text[1:-1])
            return ord(value) if len(value) == 1 else None
        if kind == "text":
            value = _unescaped(text[1:-1])
            while self._peek()[0] == "text":
                value += _unescaped(self._take()[1][1:-1])
            return _Text(value)
        if kind == "sign" and text == "(":
            inner = self._expression()
            while self._accept(","):
                inner = self._expression()
            self._take(")")
            return inner
        if kind == "sign" and text == "{":
            return _Braces(tuple(self.arguments("}")))
        if kind == "name":
            if text == "REC" and self._accept("->"):
                name = self._take()
                return _Ref(name[1]) if name[0] == "name" else None
            if self._accept("("):
                return self._call(text)
            while self._peek()[0] == "name":  # `struct x`, `unsigned int`: a type, as in sizeof
                self._take()
            if text not in self._constants:
                self._meaning.unknown.add(text)
                return None
            return self._constants[text] & _ALL
        raise _ForeignError

    def _call(self, name: str) -> _Value:
        if name in ("__get_str", "__get_dynamic_array", "__get_rel_str", "__get_rel_dynamic_array") and self._peek(1) == ("sign", ")"):
            argument = self._take()
            self._take(")")
            return _Ref(argument[1]) if argument[0] == "name" else None
        arguments = self.arguments(")")
        if name in _TABLES and arguments:
            self._note(_TABLES[name], arguments)
        return None

    def _note(self, flags: bool, arguments: list[_Value]) -> None:
        subject, rest = arguments[0], arguments[1:]
        delimiter = "|"
        if flags and rest and isinstance(rest[0], _Text):
            delimiter, rest = rest[0].value[:8], rest[1:]
        names = []
        for item in rest[:SYMBOLS_LIMIT]:
            if isinstance(item, _Braces) and len(item.items) >= 2:
                value, name = item.items[:2]
                if isinstance(value, int) and isinstance(name, _Text):
                    names.append((_signed(value), name.value[:200]))
        if isinstance(subject, _Ref) and names:
            known = self._meaning.symbols.get(subject.name)
            # Of two tables the one of the whole field tells more.
            if known is None or (_signed(known.mask) != -1 and subject.mask == _ALL):
                self._meaning.symbols[subject.name] = Symbols(flags, subject.shift, _signed(subject.mask), delimiter, tuple(names))

    def _postfix(self, value: _Value) -> _Value:
        while True:
            if self._accept("["):
                self._expression()
                self._take("]")
                value = None
            elif self._accept("->") or self._accept("."):
                self._take()
                value = None
            elif self._accept("("):  # what was called is no name: a cast pointer to a function
                self.arguments(")")
                value = None
            else:
                return value


def _signed(value: int) -> int:
    value &= _ALL
    return value - (1 << 64) if value >> 63 else value


def _compute(sign: str, left: _Value, right: _Value) -> _Value:
    if isinstance(left, int) and isinstance(right, int):
        return _constant(sign, left, right)
    if isinstance(right, _Ref) and isinstance(left, int) and sign == "&":
        left, right = right, left
    if isinstance(left, _Ref) and isinstance(right, int):
        if sign == "&":
            return replace(left, mask=left.mask & right)
        if sign == ">>" and right < 64 and left.shift + right < 64:
            return replace(left, shift=left.shift + right, mask=left.mask >> right if left.mask != _ALL else _ALL)
    return None


def _constant(sign: str, left: int, right: int) -> int | None:
    if sign in ("<<", ">>") and right > 63:
        return None
    if sign in ("/", "%") and right == 0:
        return None
    results = {
        "|": lambda: left | right,
        "^": lambda: left ^ right,
        "&": lambda: left & right,
        "<<": lambda: left << right,
        ">>": lambda: left >> right,
        "+": lambda: left + right,
        "-": lambda: left - right,
        "*": lambda: left * right,
        "/": lambda: left // right,
        "%": lambda: left % right,
        "==": lambda: int(left == right),
        "!=": lambda: int(left != right),
    }
    return results[sign]() & _ALL if sign in results else None


def _apply(sign: str, value: _Value) -> _Value:
    if isinstance(value, int):
        return {"-": -value & _ALL, "+": value, "~": ~value & _ALL, "!": int(not value)}.get(sign)
    return value if isinstance(value, _Ref) and sign in ("&", "+") else None


def _unescaped(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 8) & 255)
        return chr(int(match[2], 16)) if match[2] else _ESCAPED.get(match[3], match[3])

    return _ESCAPE.sub(plain, text)
