"""A backend that "trains" by counting, and answers everything with the most common answer.

    python -m runner backend=majority

It shows the whole contract: checks, identity, steps that yield events and resume, a model that answers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from runner.backends.majority import Majority

from runner.backends import Backend, Events, Lines, Resolved, Respondent, Result, Step
from runner.cost import Cost, Tokens
from runner.data.kinds.conversation import Conversation
from runner.data.rows import Prompt, Row
from runner.data.survey import Survey, TokenLimit
from runner.errors import ModelError, RequestError
from runner.methods import AnyMethod, Hyperparameters
from runner.plan import Proposal, Run
from runner.record.events import Metrics, Note, Progress
from runner.record.journal import RunState
from runner.record.samples import Reply, Sampling
from runner.request.keys import Request


class MajorityBackend(Backend[Majority]):
    """Counts answers."""

    name = "majority"
    settings = Majority

    def check(self, request: Request, survey: Survey) -> None:
        """Refuse keys that mean nothing here."""
        if request.evaluation.keep == "best":
            raise RequestError("evaluation.keep: got best; there is one answer to keep; use keep=last.")

    def limit(self, request: Request) -> TokenLimit | None:
        """Return None: rows may have any length."""

    def resolve(
        self, settings: Majority, method: AnyMethod, hyperparameters: Hyperparameters, num_rows: int
    ) -> Resolved[Majority]:
        """Let the method choose."""
        resolved, why = method.resolve(hyperparameters, num_rows)
        return Resolved(settings, resolved, {f"{method.name}.{key}": reason for key, reason in why.items()})

    def identity(self, settings: Majority) -> dict[str, Any]:
        """Return what decides the result."""
        return {"at_least": settings.at_least}

    def cost(self, run: Run, tokens: Tokens | None) -> Cost:
        """Return a second and no dollars."""
        return Cost(1.0, 0.0)

    def forecast(self, proposal: Proposal, tokens: Tokens | None) -> Lines:
        """Say so."""
        return [("time", "about a second")]

    def steps(self, run: Run, state: RunState) -> Sequence[Step]:
        """Count, then save; a run that is killed between the two resumes with the second."""
        return [Step("count", lambda: _count(run)), Step("save", lambda: _save(run, state))]

    def advice(self, run: Run, results: Mapping[str, Result]) -> Lines:
        """Return what to do next."""
        return [(f"python -m runner.chat {run.handle}", "hear the answer")]

    def respondents(self, run: Run, state: RunState) -> Mapping[str, Respondent]:
        """Return the model; there is no base model to ask."""
        if "save" not in state.results:
            raise ModelError(f"{run.folder}: has no model yet; let it finish first.")
        return {"tuned": Constant(state.results["count"]["answer"])}


@dataclass(frozen=True)
class Constant:
    """A model with one answer."""

    text: str

    @property
    def identity(self) -> str:
        """The answer itself."""
        return self.text

    def close(self) -> None:
        """Nothing is held."""

    def replies(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Sequence[Reply]]:
        """Yield it for each prompt."""
        for _ in prompts:
            yield [Reply(self.text)] * sampling.per_prompt


def _count(run: Run) -> Events:
    counts: Counter[str] = Counter()
    for done, row in enumerate(run.rows("train"), 1):
        counts[_answer(row)] += 1
        yield Progress("count", done, run.plan.train.rows)
    answer, times = counts.most_common(1)[0]
    if times < Majority.of(run.request).at_least:
        yield Note("no answer occurs that often; the most common one is taken")
    yield Metrics(1, {"train/majority": times / counts.total()})
    return {"answer": answer}


def _save(run: Run, state: RunState) -> Events:
    folder = run.folder / "model"
    folder.mkdir(exist_ok=True)
    (folder / "answer.json").write_bytes(msgspec.json.encode(state.results["count"]))
    yield Progress("save", 1, 1)
    return {"model": str(folder), "external": True, "job": ""}


def _answer(row: Row) -> str:
    return (row.messages if isinstance(row, Conversation) else row.chosen)[-1].content or ""


BACKEND = MajorityBackend()
