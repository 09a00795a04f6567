"""What makes an export another model than the run's: each thing that is compared, by itself."""

import math

import pytest
from msgspec.structs import replace

from runner.data.rows import Message
from runner.exporting.evidence import Evidence, Questions, Scored
from runner.exporting.exporter import Bound
from runner.exporting.proof import Proof, least, prove

BOUND = Bound(0.01, 0.9)
ROWS = 10
PROMPT = (Message("user", "Why?"),)
ASKED = Questions([PROMPT] * ROWS, [Scored(PROMPT, [1, 2], [3, 4])] * ROWS, [2], 8)
RUN = Evidence([[1, 5]] * ROWS, [[1, 5, 6, 2]] * ROWS, [[-0.5, -1.0]] * ROWS, ["Air."] * ROWS, [2], [True])
BASE = [[-3.0, -4.0]] * ROWS


def proof(**changed: object) -> Proof:
    return prove(ASKED, RUN, BASE, replace(RUN, **changed), BOUND)


def failed(**changed: object) -> list[str]:
    return [each.name for each in proof(**changed).checks if not each.passed]


def test_the_same_evidence_is_the_same_model() -> None:
    found = proof()
    assert found.holds
    assert (found.rows, found.tokens, found.mean, found.same_replies) == (ROWS, 2 * ROWS, 0.0, ROWS)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"prompts": [[1, 5]] * 9 + [[1, 7]]}, "chat template of the prompts"),
        ({"prompts": [[1, 5]] * 9 + [[1, 5, 5]]}, "chat template of the prompts"),
        ({"conversations": [[1, 5, 6]] * ROWS}, "chat template of the answers"),
        ({"stops": [False]}, "end of an answer"),
        ({"ends": [2, 7]}, "end of an answer"),
        ({"logps": [[-0.5, -1.03]] * ROWS}, "log-probabilities"),
        ({"replies": ["Air."] * 8 + ["Air", "No."]}, "greedy answers"),
    ],
)
def test_a_single_difference_is_named(changed: dict[str, object], name: str) -> None:
    assert failed(**changed) == [name]


def test_a_place_that_differs_is_named_with_row_and_token() -> None:
    found = proof(prompts=[[1, 5]] * 9 + [[1, 7]])
    assert "row 10 differs from token 2 on, ids [7] in place of ids [5]" in found.refusal


def test_log_probabilities_that_are_no_numbers_are_not_within_any_bound() -> None:
    assert "log-probabilities" in failed(logps=[[-0.5, math.nan]] * ROWS)


def test_the_base_model_is_not_taken_for_the_tuned_one_though_the_bound_is_wide() -> None:
    found = prove(ASKED, RUN, BASE, replace(RUN, logps=BASE), Bound(100, 0))
    assert [each.name for each in found.checks if not each.passed] == ["what was learned"]


def test_a_run_that_has_learned_nothing_need_not_be_distinguished_from_its_base() -> None:
    assert prove(ASKED, RUN, RUN.logps, RUN, BOUND).holds


@pytest.mark.parametrize(
    ("count", "share", "enough"), [(20, 0.9, 18), (20, 0.95, 19), (5, 0.95, 4), (1, 0.9, 0), (8, 1.0, 8), (20, 0.0, 0)]
)
def test_of_few_answers_one_may_differ_where_any_may(count: int, share: float, enough: int) -> None:
    assert least(count, share) == enough
