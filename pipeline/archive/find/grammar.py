"""The expressions that an archive is asked by: their words, their grammar, and the tree that is made of them.

    expression = conjunction {"or" conjunction}
    conjunction = negation {"and" negation}
    negation = "not" negation | comparison
    comparison = value [("==" | "!=" | "<" | "<=" | ">" | ">=") value]
    value = NUMBER | TEXT | NAME {"." NAME} | NAME "(" value {"," value} ")" | "(" expression ")"

Numbers are decimal, with a sign where there is one; texts stand in single or double quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from engines.errors import UsageError

MOST_CHARACTERS = 10_000
_DEEPEST = 100

_WORDS = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<name>[^\W\d]\w*)
      | (?P<text>"[^"]*"|'[^']*')
      | (?P<sign>==|!=|<=|>=|[<>().,])
    )""",
    re.VERBOSE,
)


_ADVICE = {
    "=": "is no comparison; write ==",
    "&": "is no word; write and",
    "&&": "is no word; write and",
    "|": "is no word; write or",
    "||": "is no word; write or",
    "!": "is no word; write not",
    '"': "begins a text that does not end",
    "'": "begins a text that does not end",
}


@dataclass(frozen=True, slots=True)
class Number:
    """A number, and where it stands."""

    value: float
    at: int


@dataclass(frozen=True, slots=True)
class Text:
    """A text, and where it stands."""

    value: str
    at: int


@dataclass(frozen=True, slots=True)
class Name:
    """A name such as `area.road`, in its parts, and where it stands."""

    parts: tuple[str, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """`near(48.1, 11.5, 500)`, and where it stands."""

    name: str
    values: tuple[Tree, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two values and the sign between them, and where that stands."""

    left: Tree
    sign: str
    right: Tree
    at: int


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    inner: Tree
    at: int


@dataclass(frozen=True, slots=True)
class Joined:
    """Several that are all to be true (`and`), or one of them at least (`or`)."""

    word: str
    parts: tuple[Tree, ...]
    at: int


Tree = Number | Text | Name | Call | Comparison | Not | Joined


@dataclass(frozen=True, slots=True)
class _Word:
    kind: str
    text: str
    at: int


def parse(expression: str) -> Tree:
    """The tree of an expression.

    Raises:
        UsageError: it is none; the sentence says where.

    >>> parse("person and not area.road > 0.3").word
    'and'
    """
    if len(expression) > MOST_CHARACTERS:
        raise UsageError(f"the expression has {len(expression)} characters, and may have {MOST_CHARACTERS}")
    parser = _Parser(expression, _words(expression))
    tree = parser.expression(0)
    if parser.next.kind != "end":
        hint = "; write `and` or `or` between two conditions" if parser.next.kind in ("name", "number", "text") else ""
        parser.refuse(parser.next, f"is not expected there{hint}")
    return tree


def refusal(expression: str, at: int, text: str, problem: str) -> UsageError:
    """The sentence on what is wrong at a place of an expression."""
    place = f"`{text}` (character {at + 1})" if text else "its end"
    return UsageError(f"in the expression {expression!r}, {place} {problem}")


def _words(expression: str) -> list[_Word]:
    words, at = list[_Word](), 0
    while expression[at:].strip():
        match = _WORDS.match(expression, at)
        if match is None or match.lastgroup is None:
            at += len(expression[at:]) - len(expression[at:].lstrip())
            text = expression[at : at + 2] if expression[at : at + 2] in ("&&", "||") else expression[at]
            advice = _ADVICE.get(text, "cannot be read; there are names, numbers, texts in quotes, and comparisons")
            raise refusal(expression, at, text, advice)
        words.append(_Word(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        at = match.end()
    return [*words, _Word("end", "", len(expression))]


class _Parser:
    def __init__(self, expression: str, words: list[_Word]) -> None:
        self._expression, self._words, self._place = expression, words, 0

    @property
    def next(self) -> _Word:
        return self._words[self._place]

    def refuse(self, word: _Word, problem: str) -> NoReturn:
        raise refusal(self._expression, word.at, word.text, problem)

    def _take(self) -> _Word:
        word = self.next
        self._place += word.kind != "end"
        return word

    def _is(self, kind: str, *texts: str) -> bool:
        text = self.next.text.lower() if kind == "name" else self.next.text
        return self.next.kind == kind and text in texts

    def expression(self, depth: int) -> Tree:
        return self._joined("or", depth)

    def _joined(self, word: str, depth: int) -> Tree:
        def part() -> Tree:
            return self._joined("and", depth) if word == "or" else self._negation(depth)

        at, parts = self.next.at, [part()]
        while self._is("name", word):
            self._take()
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts), at)

    def _negation(self, depth: int) -> Tree:
        if self._is("name", "not"):
            if depth > _DEEPEST:
                self.refuse(self.next, f"is within more than {_DEEPEST} others")
            at = self._take().at
            return Not(self._negation(depth + 1), at)
        left = self._value(depth)
        if self._is("sign", "==", "!=", "<", "<=", ">", ">="):
            sign = self._take()
            right = self._value(depth)
            if self._is("sign", "==", "!=", "<", "<=", ">", ">="):
                self.refuse(self.next, "is a second comparison; write `and` between two of them")
            return Comparison(left, sign.text, right, sign.at)
        return left

    def _value(self, depth: int) -> Tree:
        if depth > _DEEPEST:
            self.refuse(self.next, f"is within more than {_DEEPEST} parentheses")
        word = self._take()
        if word.kind == "number":
            return Number(float(word.text), word.at)
        if word.kind == "text":
            return Text(word.text[1:-1], word.at)
        if word.text == "(":
            inner = self.expression(depth + 1)
            self._close()
            return inner
        if word.kind != "name" or word.text.lower() in ("and", "or", "not"):
            self.refuse(word, "stands where a condition, a name or a number is expected")
        if self._is("sign", "("):
            self._take()
            values = [self._value(depth + 1)]
            while self._is("sign", ","):
                self._take()
                values.append(self._value(depth + 1))
            self._close()
            return Call(word.text, tuple(values), word.at)
        parts = [word.text]
        while self._is("sign", "."):
            self._take()
            part = self._take()
            if part.kind != "name":
                self.refuse(part, "stands where the rest of a name is expected, such as `area.road`")
            parts.append(part.text)
        return Name(tuple(parts), word.at)

    def _close(self) -> None:
        if not self._is("sign", ")"):
            self.refuse(self.next, "stands where `)` is expected")
        self._take()
