"""What judging costs: estimated before the start, and of the tokens that were used."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from runner.cost import price
from runner.graders import Grader, Json, Judge, Subject
from runner.judging.client import EndpointJudge, Reseeded
from runner.judging.keys import JudgeKeys

# Of English text; fewer of others, so that the price given for those is too low.
BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 4
"""What frames a message, and the answer's beginning (openai-cookbook, "How to count tokens with tiktoken", about)."""
ANSWER_TOKENS = 200
"""Assumed of a judge's answer where nothing limits it to less: three or four steps and the result."""


@dataclass(frozen=True)
class Price:
    """Questions to ask, those on disk already, about how many tokens that takes, and dollars (None: no prices set)."""

    questions: int
    cached: int
    input_tokens: int
    output_tokens: int
    dollars: float | None

    @property
    def sentence(self) -> str:
        """Say it in a sentence."""
        tokens = f"about {self.input_tokens:,} tokens in and {self.output_tokens:,} out"
        known = f", {self.cached:,} more are answered already" if self.cached else ""
        if self.dollars is None:
            money = "price not known: set evaluation.judge.input_price and output_price"
        else:
            money = price(self.dollars)
        return f"{self.questions:,} questions{known}; {tokens}; {money}"


def dollars(input_tokens: int, output_tokens: int, keys: JudgeKeys) -> float | None:
    """Return what tokens cost by the prices of a million; None where one of them is not set."""
    if keys.input_price is None or keys.output_price is None:
        return None
    return (input_tokens * keys.input_price + output_tokens * keys.output_price) / 1e6


def total(prices: Iterable[Price]) -> float | None:
    """Return the dollars of several prices; None where one is not known."""
    paid = [each.dollars for each in prices]
    return None if None in paid else sum(filter(None, paid))


def forecast(
    grader: Grader,
    subjects: Iterable[Subject],
    keys: JudgeKeys,
    judge: EndpointJudge | None = None,
    more_seeds: Sequence[int] = (),
) -> Price:
    """Return what grading some answers will take; answers that do not exist yet are given as texts of their length.

    Graders are run with a judge that only counts, so whatever they ask is counted, in both orders, too; of a `multi`
    those parts are run that ask a judge. With `judge`, what is answered on disk is counted apart: it costs nothing.
    With `more_seeds` the judge is asked once more with each of them.
    """
    counter = Counter(judge.known if judge else lambda *question: False)
    with ExitStack() as stack:
        asked: list[Judge] = [counter, *(Reseeded(counter, seed) for seed in more_seeds)]
        gradings = [stack.enter_context(each.grading(to)) for to in asked for each in _asking(grader)]
        for subject in subjects:
            for grade in gradings:
                grade(subject)
    paid = dollars(counter.input_tokens, counter.output_tokens, keys)
    return Price(counter.questions, counter.cached, counter.input_tokens, counter.output_tokens, paid)


class Counter:
    """A judge that asks nobody: it counts, and answers the least that has the form asked for."""

    def __init__(self, known: Callable[[str, list[Json], Mapping[str, Json]], bool]) -> None:
        self.questions = self.cached = self.input_tokens = self.output_tokens = 0
        self._known = known
        self._seen: set[bytes] = set()

    def ask(self, model: str, messages: list[Json], options: Mapping[str, Json]) -> str:
        """Count a question, each content once, as it is paid once."""
        content = msgspec.json.encode([model, messages, options], order="deterministic")
        if self._known(model, messages, options):
            self.cached += 1
        # Two answers that are alike are one question, and paid once.
        elif content not in self._seen:
            self._seen.add(content)
            self.questions += 1
            self.input_tokens += tokens(messages) + tokens(options.get("response_format"))
            limit = options.get("max_completion_tokens")
            self.output_tokens += min(limit, ANSWER_TOKENS) if isinstance(limit, int) else ANSWER_TOKENS
        # Of the form asked for, so that a grader continues and asks whatever it would ask next.
        return msgspec.json.encode({"steps": [], "result": _example(options)}).decode()


def tokens(value: Json) -> int:
    """Return about how many tokens messages, or an answer's form, take: four bytes each, and what frames a message."""
    if isinstance(value, list):
        return sum(tokens(each) + MESSAGE_TOKENS for each in value)
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        return len(str(value["content"]).encode()) // BYTES_PER_TOKEN
    return len(msgspec.json.encode(value)) // BYTES_PER_TOKEN if value is not None else 0


def _asking(grader: Grader) -> Iterator[Grader]:
    """Yield the graders that ask a judge, the grader itself or its parts: nothing else is run to count."""
    for part in grader.parts.values():
        yield from _asking(part)
    if not grader.parts and list(grader.models()):
        yield grader


def _example(options: Mapping[str, Json]) -> Json:
    """Return a result that the form asked for allows."""
    try:
        result = options["response_format"]["json_schema"]["schema"]["properties"]["result"]  # type: ignore[index,call-overload]
        return result["enum"][0] if "enum" in result else 0.0  # type: ignore[index,call-overload,operator]
    except (KeyError, TypeError):
        return 0.0
