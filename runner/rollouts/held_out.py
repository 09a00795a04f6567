"""Held-out prompts answered by the policy and graded: by the reward, and by graders that are not trained on."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from runner.errors import RequestError
from runner.evaluation import grading, summary
from runner.evaluation.configured import key_of
from runner.graders import Grader, Judge
from runner.methods.rft import RFT
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record import graded, layout
from runner.record.events import Event, Metrics, Note, Progress
from runner.record.graded import AnswerGrade, Asked
from runner.record.samples import Sampling
from runner.rollouts import sampled, signals
from runner.rollouts.sampled import POLICY, Group
from runner.training.engine import Engine
from runner.training.evaluated import EvaluationState

REWARD = "reward"
"""What the grader that is trained on is called in grades; no other may have that name."""
LEAST_ROWS = 10
"""With fewer rows nothing is said of chance."""


@dataclass(frozen=True)
class HeldOutProblems:
    """Held-out rows, the grader of the reward, and `others` that only look on: where these fall while the reward
    rises, the reward is outwitted.
    """

    folder: Path
    rows: Sequence[Asked]
    tokenizer: ChatTokenizer
    keys: RFT
    seed: int
    grader: Grader
    others: Sequence[Grader]
    judge: Judge | None
    at_once: int = 1

    @property
    def metric(self) -> str:
        """The mean reward: the higher the better."""
        return f"eval/{REWARD}"

    @property
    def waits(self) -> bool:
        """Say no: the untrained model has to answer, too."""
        return False

    def __len__(self) -> int:
        return len(self.rows)

    def evaluate(self, engine: Engine, step: int, evaluated: EvaluationState) -> Generator[Event, None, float]:
        """Return the mean reward with its sign turned.

        Raises `RequestError` where the grader has given no answer a score.
        """
        grades = yield from self.graded(engine, step)
        yield from self._diverging(grades)
        means = summary.means(grades, POLICY)
        return -means[REWARD]

    def untrained(self, evaluated: EvaluationState) -> Generator[Event, None, None]:
        """Do nothing: the untrained model is evaluated before the first step."""
        yield from ()

    def graded(self, engine: Engine, step: int) -> Generator[Event, None, list[AnswerGrade]]:
        """Return the grades of the answers after so many steps, and yield their means as metrics."""
        yield Progress("train", step, 0, what="held-out answers")
        keys = self.keys
        how = Sampling(
            max_new_tokens=msgspec.convert(keys.max_new_tokens, int),
            per_prompt=msgspec.convert(keys.eval_samples, int),
            # As the policy is sampled in training; the same numbers at each evaluation, so that less is left to chance.
            temperature=msgspec.convert(keys.temperature, float), seed=self.seed,
        )  # fmt: skip
        # A folder of its own for each step: a resumed run, and the evaluation of the result, find what was sampled and
        # paid for.
        folder = self._folder(step)

        reward = msgspec.structs.replace(self.grader, name=REWARD)
        groups = sampled.kept(folder / layout.SAMPLED, lambda: self._drawn(engine, folder, how, reward))
        answers = sampled.answers_of(self.rows, groups)
        work = grading.grade(folder, self.rows, answers, [reward, *self.others], self.judge, at_once=self.at_once)
        grades = yield from sampled.shown_as(Progress("train", step, 0, what="held-out grades"), work)
        yield from sampled.shown(self.folder, folder, step, self.rows, groups)
        own = [grade for grade in grades if grade.grader == REWARD]
        # Rows are the unit, however many answers each has; a row with an ungraded answer has no mean.
        means = summary.means(grades, POLICY, self.rows)
        if REWARD not in means:
            error = summary.first_error(grades, REWARD)
            raise RequestError(f"rft.grader: {self.grader.name} has given no held-out row a score: {error}")
        found = {f"eval/{name}": value for name, value in signals.figures(groups, own).items()}
        # Under another name than at the end, where answers are sampled as `evaluation` says.
        own_means = rewards(means)
        found |= {f"eval/{name}_sampled": mean for name, mean in means.items() if f"eval/{name}" not in own_means}
        yield Metrics(step, found | own_means)
        return grades

    def _drawn(self, engine: Engine, folder: Path, how: Sampling, reward: Grader) -> list[Group]:
        prompts = [self.tokenizer.encode_prompt(row.given) for row in self.rows]
        with grading.ahead(folder, self.rows, reward, self.judge, self.at_once) as grade_now:
            return sampled.sample(
                engine, self.tokenizer, range(len(prompts)), prompts, lambda turn: replace(how, seed=self.seed + turn),
                lambda place, which, answer: grade_now(sampled.answer_of(self.rows[place], which, answer)),
            )  # fmt: skip

    def _diverging(self, grades: Sequence[AnswerGrade]) -> Generator[Event, None, None]:
        """Warn where the reward has risen since before training, and another grader's score has fallen."""
        before = graded.read(self._folder(0) / layout.GRADES, AnswerGrade)
        # Both intervals by the same rows, so that a rise by chance is not taken for one.
        low, _ = self._change(before, grades, REWARD)
        for each in self.others if low > 0 else ():
            _, high = self._change(before, grades, each.name)
            if high < 0:
                yield Note(
                    f"the reward rises on held-out rows, and {each.name} falls: the model outwits grader "
                    f"{self.grader.name}; read its answers, and put both into the reward (type multi)"
                )

    def _change(
        self, before: Sequence[AnswerGrade], after: Sequence[AnswerGrade], name: str
    ) -> tuple[float, float]:  # fmt: skip
        """Return the 95 % interval of how a grader's score has changed, row by row; around 0 with few rows."""
        import numpy as np

        from runner.compare.interval import estimate

        old, new = (
            {row: each[name] for row, each in graded.row_scores(grades, POLICY).items() if name in each}
            for grades in (before, after)
        )
        common = sorted(old.keys() & new.keys())
        if len(common) < LEAST_ROWS:
            return 0.0, 0.0
        theirs, ours = (np.array([[side[row] for row in common]]) for side in (old, new))
        return estimate(ours, theirs).interval()

    def _folder(self, step: int) -> Path:
        return self.folder / layout.CHECKPOINT_GRADES / f"step-{step}"


def watching(graders: Sequence[Grader], reward: Grader) -> list[Grader]:
    """Return the graders that look on while a model trains: free ones that are not the reward."""
    # A judge is paid for at the end only; the reward is recognised by content, as it may be listed under another name.
    same = key_of(msgspec.structs.replace(reward, name=""))
    free = [each for each in graders if not (each.compares or each.concurrent or list(each.models()))]
    return [each for each in free if key_of(msgspec.structs.replace(each, name="")) != same]


def rewards(means: Mapping[str, float]) -> dict[str, float]:
    """Return the rewards among means by grader as metrics: `eval/reward`, of a mixture also `eval/SOURCE/reward`."""
    return {f"eval/{name}": mean for name, mean in means.items() if name.rpartition("/")[2] == REWARD}
