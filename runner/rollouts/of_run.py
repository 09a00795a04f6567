"""What a run learns from and is judged by where a grader scores the model's own answers, whatever engine gives them."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from runner.backends import Result
from runner.data.rows import Row
from runner.data.splits import Split
from runner.evaluation import configured, judges, summary
from runner.evaluation.reward import grader_of
from runner.graders import Judge
from runner.judging.client import EndpointJudge
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record import graded, layout
from runner.record.events import Event
from runner.rollouts.held_out import REWARD, HeldOutProblems, rewards, watching
from runner.rollouts.learning import Reference
from runner.rollouts.rollouts import Rollouts
from runner.rollouts.sampled import POLICY, asked, problem_of
from runner.training.engine import Engine
from runner.training.loop import learn
from runner.training.recipe import Recipe

if TYPE_CHECKING:
    from runner.plan import Run


class RunRollouts:
    """The rollouts of a run, the evaluations on the way, and that of its result."""

    def __init__(
        self, run: "Run", rows: Mapping[Split, Sequence[Row]], tokenizer: ChatTokenizer, recipe: Recipe
    ) -> None:
        self._run, self._rows, self._tokenizer, self._recipe = run, rows, tokenizer, recipe

    def train(self, engine: Engine, reference: Reference) -> Generator[Event, None, int]:
        """Train as `learn` does; `reference` is asked where `rft.beta` is above 0."""
        keys, request = self._run.hyperparameters, self._run.request
        # One judge for rollouts and held-out rows: what it has cost is one sum.
        with self._judge() as judge:
            rollouts = Rollouts(
                self._run.folder, self._rows["train"], self._tokenizer, self._recipe, keys,
                grader_of(request), judge, reference, request.evaluation.judge.concurrency,
                lambda: judges.in_words(judge.usage, request.evaluation.judge) if judge else "",
            )  # fmt: skip
            return (yield from learn(engine, self._recipe, rollouts, self._held_out(judge)))

    def evaluate(self, engine: Engine, step: int) -> Generator[Event, None, Result]:
        """Judge the result, the weights after so many steps, on every held-out row by the grader it was trained by."""
        with self._judge() as judge:
            held_out = self._held_out(judge)
            grades = yield from held_out.graded(engine, step)
        scores = graded.row_scores(grades, POLICY)
        lines = [
            msgspec.json.encode({"row": row, REWARD: each[REWARD]}) for row, each in scores.items() if REWARD in each
        ]
        (self._run.folder / layout.HELD_OUT).write_bytes(b"".join(line + b"\n" for line in lines))
        # Under the name that the evaluations on the way have, so that a chart ends with it.
        means: Result = {**rewards(summary.means(grades, POLICY, held_out.rows))}
        return means

    def _held_out(self, judge: Judge | None) -> HeldOutProblems:
        request, grader = self._run.request, grader_of(self._run.request)
        return HeldOutProblems(
            self._run.folder, [
                asked(problem_of(row), source)
                for row, source in self._run.with_source(self._rows.get("validation", ()))
            ],
            self._tokenizer, self._run.hyperparameters, self._run.plan.seed, grader,
            watching(configured.of_request(request), grader), judge, request.evaluation.judge.concurrency,
        )  # fmt: skip

    @contextmanager
    def _judge(self) -> Iterator[EndpointJudge | None]:
        with judges.judge_of(self._run.request.evaluation.judge, [grader_of(self._run.request)]) as judge:
            yield judge
