"""Patterns in sequences of calls: a grammar of what is repeated, learnt by replacing pairs, with loops as one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ringtape.analysis.call_order import Block

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
RULES = 256
"""Pairs that are replaced at most."""
LONGEST = 12
"""Calls that the text of a pattern names at most."""
FEWEST = 2
"""Times that a pair must occur to be replaced."""


@dataclass(frozen=True)
class Tokens:
    """What stands one after the other: a call, or what a rule made of several.

    ``linked`` is true where the next token follows in the same thread. ``calls`` are the calls inside, ``inside`` is the time in
    them (ns), ``rounds`` how often the symbol was repeated without a break.
    """

    symbol: Ints
    linked: Bools
    thread: Ints
    start: Ints
    end: Ints
    inside: Ints
    calls: Ints
    rounds: Ints

    @classmethod
    def of(cls, block: Block) -> Tokens:
        """Take the calls of a block."""
        ones = np.ones(len(block.code), np.int64)
        return cls(block.code, block.linked, block.thread, block.start, block.end, block.end - block.start, ones, ones)

    def joined(self, first: Bools) -> Tokens:
        """Make one token of each first one and those behind it that are not first; the symbol is that of the first."""
        at = np.flatnonzero(first)
        if len(at) == len(first):
            return self
        last = np.append(at[1:], len(first)) - 1
        return Tokens(
            self.symbol[at],
            self.linked[last],
            self.thread[at],
            self.start[at],
            self.end[last],
            np.add.reduceat(self.inside, at),
            np.add.reduceat(self.calls, at),
            np.add.reduceat(self.rounds, at),
        )

    def loops_joined(self) -> Tokens:
        """Make one token of each symbol that follows itself."""
        if not len(self.symbol):
            return self
        again = np.zeros(len(self.symbol), np.bool_)
        again[1:] = (self.symbol[1:] == self.symbol[:-1]) & self.linked[:-1]
        return self.joined(~again)

    def replaced(self, left: int, right: int, symbol: int) -> Tokens:
        """Make one token of each pair of two different symbols, then of those that follow each other."""
        hit = np.flatnonzero((self.symbol[:-1] == left) & (self.symbol[1:] == right) & self.linked[:-1])
        if not len(hit):
            return self
        symbols, rounds = self.symbol.copy(), self.rounds.copy()
        symbols[hit] = symbol
        rounds[hit] = 1
        rounds[hit + 1] = 0
        first = np.ones(len(symbols), np.bool_)
        first[hit + 1] = False
        return replace(self, symbol=symbols, rounds=rounds).joined(first).loops_joined()


@dataclass
class Grammar:
    """Rules in the order in which they are applied: each makes a symbol of a pair of others.

    Symbols below ``calls`` are codes of calls. ``looped`` holds the symbols that were seen to follow themselves.
    """

    calls: int
    rules: list[tuple[int, int]] = field(default_factory=list)
    looped: set[int] = field(default_factory=set)

    def parse(self, tokens: Tokens) -> Tokens:
        """Apply the rules."""
        tokens = tokens.loops_joined()
        self._note(tokens)
        for at, (left, right) in enumerate(self.rules):
            tokens = tokens.replaced(left, right, self.calls + at)
            self._note(tokens)
        return tokens

    def learn(self, tokens: Tokens) -> None:
        """Find rules, each for the pair that is met most among those that make up half of their rarer side and a quarter of the other."""
        tokens = tokens.loops_joined()
        self._note(tokens)
        length = dict.fromkeys(range(self.calls), 1)
        while len(self.rules) < RULES:
            known = np.unique(tokens.symbol)
            place = np.searchsorted(known, tokens.symbol)
            size = len(known)
            met, times = _numbers((place[:-1] * size + place[1:])[tokens.linked[:-1]], size * size)
            alone = np.bincount(place, minlength=size)
            rows, columns = met // max(size, 1), met % max(size, 1)
            mostly = 2 * times >= np.minimum(alone[rows], alone[columns])
            often = 4 * times >= np.maximum(alone[rows], alone[columns])
            likely = mostly & often
            short = np.array([length[int(known[a])] + length[int(known[b])] <= LONGEST for a, b in zip(rows, columns, strict=True)], np.bool_)
            fit = likely & short & (rows != columns) & (times >= FEWEST)
            if not fit.any():
                return
            best = int(met[fit][np.argmax(times[fit])])
            left, right = int(known[best // size]), int(known[best % size])
            symbol = self.calls + len(self.rules)
            self.rules.append((left, right))
            length[symbol] = length[left] + length[right]
            tokens = tokens.replaced(left, right, symbol)
            self._note(tokens)

    def _note(self, tokens: Tokens) -> None:
        self.looped.update(np.unique(tokens.symbol[tokens.rounds > 1]).tolist())

    def leaves(self, symbol: int) -> int:
        """Return how many calls the text of a symbol names."""
        if symbol < self.calls:
            return 1
        left, right = self.rules[symbol - self.calls]
        return self.leaves(left) + self.leaves(right)

    def text(self, symbol: int, labels: list[str], arrow: str) -> str:
        """Return a pattern as text: ``+`` stands behind what was repeated without a break in some places."""
        if symbol < self.calls:
            return str(labels[symbol]) + ("+" if symbol in self.looped else "")
        inner = arrow.join(self.text(part, labels, arrow) for part in self.rules[symbol - self.calls])
        return f"({inner})+" if symbol in self.looped else inner


def _numbers(values: Ints, size: int) -> tuple[Ints, Ints]:
    """Return the different values, which are below ``size``, and how often each occurs."""
    if size > 1 << 20:  # counting would fill more memory than sorting
        found, times = np.unique(values, return_counts=True)
        return found, times
    counted = np.bincount(values, minlength=size)
    found = np.flatnonzero(counted)
    return found, counted[found]
