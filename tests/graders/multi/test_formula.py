"""calculate_output: arithmetic over scores, with the precedence of arithmetic and errors by column."""

import math
import random

import pytest

from runner.graders.multi.formula import FormulaError, parse

SCORES = {"a": 0.25, "b": 0.5, "c": 3.0, "zero": 0.0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", 0.25),
        ("a + b * 2", 1.25),
        ("(a + b) * 2", 1.5),
        ("1 - 2 - 3", -4),
        ("8 / 4 / 2", 1),
        ("-c ^ 2", -9),
        ("2 ^ 3 ^ 2", 512),
        ("2 ^ -1", 0.5),
        ("--a", 0.25),
        ("2 * -c", -6),
        ("min(a, b, c) + max(a, b)", 0.75),
        ("max(a)", 0.25),
        ("abs(a - b)", 0.25),
        ("floor(2.7) + ceil(0.2)", 3),
        ("exp(0) + sqrt(4) + log(exp(1))", 4),
        (".5 + 1. + 1e-1", 1.6),
        ("  a\n+\tb ", 0.75),
    ],
)
def test_a_formula_has_a_value(text: str, value: float) -> None:
    assert parse(text).value(SCORES) == pytest.approx(value, abs=1e-12)


def test_generated_formulas_have_the_value_that_python_gives_them() -> None:
    draw = random.Random(3)

    def term(depth: int) -> str:
        kind = draw.randrange(7) if depth else draw.randrange(2)
        match kind:
            case 0:
                return draw.choice(["a", "b", "c"])
            case 1:
                return str(draw.choice([2, 0.5, 1.25]))
            case 2 | 3:
                return f"{term(depth - 1)} {draw.choice('+-*/')} {term(depth - 1)}"
            case 4:
                return f"-{term(depth - 1)}"
            case 5:
                return f"({term(depth - 1)}) ^ 2"
            case _:
                return f"{draw.choice(['min', 'max'])}({term(depth - 1)}, {term(depth - 1)})"

    compared = 0
    for _ in range(1_000):
        text = term(4)
        try:
            expected = eval(text.replace("^", "**"), {"min": min, "max": max}, SCORES)
        except ZeroDivisionError:
            continue
        assert parse(text).value(SCORES) == pytest.approx(expected, rel=1e-9)
        compared += 1
    assert compared > 900


def test_a_formula_says_which_keys_it_uses() -> None:
    assert parse("min(a, b) + exp(c2)").keys == {"a", "b", "c2"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "column 1: got the end; expected a number, a grader's key, a function or '('"),
        ("a +", "column 4: got the end; expected a number, a grader's key, a function or '('"),
        ("a b", "column 3: got 'b'; expected an operator or the end"),
        ("(a + b", "column 7: got the end; expected ')'"),
        ("a ** 2", "column 4: got '*'; expected a number, a grader's key, a function or '('"),
        ("a, b", "column 2: got ','; expected an operator or the end"),
        ("a.b", "column 2: got '.'; expected an operator or the end"),
        ("abs(a, b)", "column 6: got ','; expected ')'"),
        ("min", "column 4: got the end; expected '(' after min"),
        ("min()", "column 5: got ')'; expected a number, a grader's key, a function or '('"),
        ("a + sin(b)", "column 5: no function sin; it has min, max, abs, floor, ceil, exp, sqrt, log"),
        ("__import__('os')", "column 1: no function __import__; it has min, max, abs, floor, ceil, exp, sqrt, log"),
        ("(" * 1_000 + "a" + ")" * 1_000, "column 51: nested more than 50 deep"),
        ("-" * 100_000 + "a", "column 51: nested more than 50 deep"),
    ],
    ids=lambda text: text[:20],
)
def test_what_cannot_be_read_is_said_with_its_column(text: str, error: str) -> None:
    with pytest.raises(FormulaError) as reported:
        parse(text)
    assert str(reported.value) == error


@pytest.mark.parametrize(
    "text", ["a / zero", "sqrt(-a)", "log(zero)", "exp(1e4)", "(-a) ^ 0.5", "1e308 * 10 * a", "zero ^ -1"]
)
def test_a_formula_without_a_value_is_an_error(text: str) -> None:
    with pytest.raises(FormulaError) as reported:
        parse(text).value(SCORES)
    assert str(reported.value).startswith(f"{text}: ")


def test_a_long_formula_is_no_deep_one() -> None:
    assert parse(" + ".join(["a"] * 10_000)).value(SCORES) == 2_500
    assert math.isclose(parse(" * ".join(["1"] * 10_000)).value(SCORES), 1)
