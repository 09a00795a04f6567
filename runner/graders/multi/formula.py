"""Arithmetic over scores: the language of `calculate_output`, parsed by recursive descent, never by `eval`.

sum      = product (("+" | "-") product)*
product  = signed (("*" | "/") signed)*
signed   = "-" signed | power
power    = value ("^" signed)?               so -2^2 is -4, and 2^3^2 is 2^9
value    = number | key | function "(" sum ("," sum)* ")" | "(" sum ")"
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Value = Callable[[Mapping[str, float]], float]

FUNCTIONS: dict[str, Callable[..., float]] = {
    **{"min": min, "max": max},
    **{"abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp, "sqrt": math.sqrt, "log": math.log},
}
"""`min` and `max` take one score or more, the others one; `log` is natural."""
# A number, a name, any other sign, or the end.
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|([^\W\d]\w*)|(\S)|$)")
# Far beyond any formula, and far within Python's limit of 1,000 frames: a level takes some five of them.
_DEEPEST = 50


class FormulaError(ValueError):
    """A formula cannot be read, or has no value for some scores; the message is one clause, with the column."""


@dataclass(frozen=True)
class Formula:
    """A formula that was read: its text, the keys it uses, and its value for scores by key."""

    text: str
    keys: frozenset[str]
    of: Value

    def value(self, scores: Mapping[str, float]) -> float:
        """Return the formula's value; raises `FormulaError` where it has none, such as a division by zero."""
        try:
            found = float(self.of(scores))
        except (ArithmeticError, ValueError) as error:
            raise FormulaError(f"{self.text}: {error}") from error
        if not math.isfinite(found):
            raise FormulaError(f"{self.text}: the result is {found}")
        return found


def parse(text: str) -> Formula:
    """Return a formula; raises `FormulaError` with the column, counted from 1, of what cannot be read."""
    return _Parser(text).formula()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.keys: set[str] = set()
        self.depth = 0
        self.end = 0
        self._advance()

    def formula(self) -> Formula:
        value = self._sum()
        if self.token:
            raise self._error("an operator or the end")
        return Formula(self.text, frozenset(self.keys), value)

    def _advance(self) -> str:
        """Return the token at hand and go to the next one."""
        token = getattr(self, "token", "")
        match = _TOKEN.match(self.text, self.end)
        assert match is not None  # its last choices take any character, and the end
        self.number, self.name, sign = (part or "" for part in match.groups())
        self.token = self.number or self.name or sign
        self.column, self.end = match.end() - len(self.token) + 1, match.end()
        return token

    def _take(self, *tokens: str) -> str:
        return self._advance() if self.token and self.token in tokens else ""

    def _error(self, allowed: str) -> FormulaError:
        found = f"'{self.token}'" if self.token else "the end"
        return FormulaError(f"column {self.column}: got {found}; expected {allowed}")

    def _sum(self) -> Value:
        first, rest = self._product(), list[tuple[str, Value]]()
        while sign := self._take("+", "-"):
            rest.append((sign, self._product()))

        def total(scores: Mapping[str, float]) -> float:
            result = first(scores)
            for sign, term in rest:
                result = result + term(scores) if sign == "+" else result - term(scores)
            return result

        return total if rest else first

    def _product(self) -> Value:
        first, rest = self._signed(), list[tuple[str, Value]]()
        while sign := self._take("*", "/"):
            rest.append((sign, self._signed()))

        def product(scores: Mapping[str, float]) -> float:
            result = first(scores)
            for sign, factor in rest:
                result = result * factor(scores) if sign == "*" else result / factor(scores)
            return result

        return product if rest else first

    def _signed(self) -> Value:
        self.depth += 1  # every way down passes here, so Python's own limit is never met
        if self.depth > _DEEPEST:
            raise FormulaError(f"column {self.column}: nested more than {_DEEPEST} deep")
        if self._take("-"):
            inner = self._signed()
            found: Value = lambda scores: -inner(scores)  # noqa: E731
        else:
            found = self._power()
        self.depth -= 1
        return found

    def _power(self) -> Value:
        base = self._value()
        if not self._take("^"):
            return base
        exponent = self._signed()
        return lambda scores: math.pow(base(scores), exponent(scores))  # ** would turn complex

    def _value(self) -> Value:
        if self.number:
            constant = float(self._advance())
            return lambda scores: constant
        if self._take("("):
            return self._closed(self._sum())
        if not self.name:
            raise self._error("a number, a grader's key, a function or '('")
        if self.name in FUNCTIONS:
            return self._call()
        column, key = self.column, self._advance()
        if self.token == "(":
            raise FormulaError(f"column {column}: no function {key}; it has {', '.join(FUNCTIONS)}")
        self.keys.add(key)
        return lambda scores: scores[key]

    def _call(self) -> Value:
        name = self._advance()
        if not self._take("("):
            raise self._error(f"'(' after {name}")
        function, values = FUNCTIONS[name], [self._sum()]
        while name in ("min", "max") and self._take(","):
            values.append(self._sum())
        if name in ("min", "max"):
            return self._closed(lambda scores: function([each(scores) for each in values]))
        return self._closed(lambda scores: function(values[0](scores)))

    def _closed(self, value: Value) -> Value:
        if not self._take(")"):
            raise self._error("')'")
        return value
