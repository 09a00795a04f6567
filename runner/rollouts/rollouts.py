"""The prompts of a step answered by the policy, graded, and turned into a batch: what reinforcement learns from."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from runner.data.rows import Row
from runner.errors import RequestError
from runner.evaluation import grading
from runner.graders import Grader, Judge
from runner.methods.rft import RFT
from runner.methods.rft.advantages import spread
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record import layout
from runner.record.events import Event, Metrics, Note, Progress
from runner.record.graded import AnswerGrade
from runner.record.samples import Sampling
from runner.rollouts import learning, sampled, signals
from runner.rollouts.learning import Reference
from runner.rollouts.sampled import Group
from runner.training.batches import Batch
from runner.training.engine import Engine
from runner.training.recipe import Recipe
from runner.training.schedule import batch

OCCURRENCES = 101
"""Seeds a rollout: how often one prompt may occur in a batch before two of its rows have the same answers."""


EXTRA_SEED = 1 << 40
"""Between the seeds of a rollout's rounds: more than any rollout's own seed."""
EXTRA_ORDER = 1_000_003
"""The same for the order of rows, which torch's generator makes of the lowest 32 bits alone."""


@dataclass
class Spent:
    """What the rollouts of this process have taken, and how long nothing could be learned from them."""

    answers: int = 0
    tokens: int = 0
    sampling: float = 0.0
    """Seconds."""
    grading: float = 0.0
    barren: int = 0
    """Rollouts of which no group had any spread."""
    ungraded: int = 0
    """Rollouts in which an answer had no grade."""
    reported_length: bool = False
    began: float | None = None
    """When the first rollout began that this process has had answered; those on the disk take no time."""
    rollouts: int = 0

    def figures(self, before: "Spent", began: float) -> dict[str, float]:
        """Return the metrics of a rollout that began then and of which nothing is in `before`, and count it in."""
        sampling = self.sampling - before.sampling
        found = {
            "system/sampling_seconds": sampling, "system/grading_seconds": self.grading - before.grading,
            "system/sampled_tokens_per_second": (self.tokens - before.tokens) / sampling,
        }  # fmt: skip
        if self.began is None:
            self.began = began
            return found
        self.rollouts += 1  # those that came before it are over: learned from, and evaluated
        return found | {"system/seconds_per_rollout": (began - self.began) / self.rollouts}


@dataclass(frozen=True)
class Rollouts:
    """Rows whose prompts are answered by whatever engine trains; `grader` says what an answer is worth.

    A rollout is answered by the weights before it, and learned from in `rft.updates_per_rollout` steps. `reference`
    is asked where `rft.beta` is above 0.
    """

    folder: Path
    rows: Sequence[Row]
    tokenizer: ChatTokenizer
    recipe: Recipe
    keys: RFT
    grader: Grader
    judge: Judge | None
    reference: Reference
    at_once: int = 1
    paid: Callable[[], str] = str
    """Says what a judge has cost so far, if one is asked."""
    spent: Spent = field(default_factory=Spent)

    def batch(self, engine: Engine, step: int) -> Generator[Event, None, Batch]:
        """Return the groups of the rollout that a step belongs to, those without spread left out.

        With `rft.extra_rounds` other prompts are answered in their place: the dynamic sampling of DAPO
        (https://arxiv.org/abs/2503.14476, section 3.2). Raises `RequestError` where the grader gives no answer a grade.
        """
        number = step // msgspec.convert(self.keys.updates_per_rollout, int)
        before, began = replace(self.spent), time.perf_counter()
        groups, grades = yield from self._answered(engine, number, step)
        # As often as held-out rows are answered: each rollout would be a table too many to look at.
        if step % self.recipe.evaluate_every == 0:
            rows = sampled.asked_of(self.rows, groups)
            yield from sampled.shown(self.folder, self._folder(number), step, rows, groups)
        # From here on all is a function of what is on the disk, so that a resumed step has the same result.
        rewards: signals.Rewards = signals.by_group(groups, grades)
        yield from self._warned(groups, grades, rewards)
        # Of the prompts as they come: those answered for their spread alone would make figures look better.
        values = signals.figures(groups, grades) | {"without_spread": signals.without_spread(rewards)}
        groups, rewards = yield from self._filled(engine, number, step, groups, rewards)
        if self.spent.answers > before.answers:
            yield Metrics(step, self.spent.figures(before, began))
        reference = sampled.kept_reference(self._folder(number) / layout.COMPARED, self.reference)
        return learning.batch(groups, rewards, self.keys, self.recipe.loss, reference, values)

    def _filled(
        self, engine: Engine, number: int, step: int, groups: Sequence[Group], rewards: signals.Rewards
    ) -> Generator[Event, None, tuple[Sequence[Group], signals.Rewards]]:
        """Return as many groups with their rewards, those without spread replaced by groups of other prompts."""
        kept = list(zip(groups, rewards, strict=True))
        for turn in range(1, 1 + self.keys.extra_rounds):
            # The first of them stay, so that what is learned from does not depend on how long a round takes.
            empty = [place for place, (_, own) in enumerate(kept) if not spread(own)]
            if not empty:
                break
            more, grades = yield from self._answered(engine, number, step, turn, len(empty))
            found = zip(more, signals.by_group(more, grades), strict=True)
            telling = [(group, own) for group, own in found if spread(own)]
            for place, each in zip(empty, telling, strict=False):
                kept[place] = each
        return [group for group, _ in kept], [own for _, own in kept]

    def _answered(
        self, engine: Engine, number: int, step: int, turn: int = 0, most: int | None = None
    ) -> Generator[Event, None, tuple[Sequence[Group], Sequence[AnswerGrade]]]:
        """Return the answers of a round of a rollout to `most` prompts, with their grades."""
        folder = self._folder(number) / (f"round-{turn}" if turn else "")
        began, known = time.perf_counter(), (folder / layout.SAMPLED).exists()
        # Kept before they are graded, and graded before anything is learned from them.
        groups = yield from self._sampled(engine, folder, number, step, turn, most)
        sampled_in = time.perf_counter() - began
        grades = yield from self._graded(groups, folder, step)
        if not known:
            self.spent.answers += len(grades)
            self.spent.tokens += sum(len(answer.ids) for group in groups for answer in group.answers)
            self.spent.sampling += sampled_in
            self.spent.grading += time.perf_counter() - began - sampled_in
        return groups, grades

    def _folder(self, number: int) -> Path:
        return self.folder / layout.ROLLOUTS / f"step-{number:08d}"

    def _sampled(
        self, engine: Engine, folder: Path, number: int, step: int, turn: int, most: int | None
    ) -> Generator[Event, None, Sequence[Group]]:
        """Return the answers of a round: those that are kept, else new ones, which are kept now."""
        path = folder / layout.SAMPLED
        if not path.exists():
            yield Progress("train", step, self.recipe.num_steps, what="more answers" if turn else "answers")
        return sampled.kept(path, lambda: self._drawn(engine, folder, number, turn, most))

    def _drawn(self, engine: Engine, folder: Path, number: int, turn: int, most: int | None) -> list[Group]:
        # Later rounds go through the rows in orders of their own, as if they were further epochs.
        seed = self.recipe.seed + turn * EXTRA_ORDER
        places = batch(len(self.rows), self.recipe.hyperparameters.batch_size, seed, number)[:most]
        rows = sampled.asked_at(self.rows, places)
        prompts = [self.tokenizer.encode_prompt(row.given) for row in rows]
        with engine.timed("answers"), grading.ahead(folder, rows, self.grader, self.judge, self.at_once) as grade_now:
            return sampled.sample(
                engine, self.tokenizer, places, prompts, lambda nth: self._sampling(number, nth + turn * EXTRA_SEED),
                lambda place, which, answer: grade_now(sampled.answer_of(rows[place], which, answer)),
            )  # fmt: skip

    def _sampling(self, number: int, turn: int) -> Sampling:
        keys = self.keys  # resolved, so that `convert` below only informs the type checker
        # From the rollout's number alone: a resumed run draws the same answers, whatever it has drawn before.
        seed = (self.recipe.seed * 1_000_003 + number) * OCCURRENCES + turn
        return Sampling(
            max_new_tokens=msgspec.convert(keys.max_new_tokens, int), per_prompt=msgspec.convert(keys.group_size, int),
            temperature=msgspec.convert(keys.temperature, float), seed=seed,
        )  # fmt: skip

    def _graded(self, groups: Sequence[Group], folder: Path, step: int) -> Generator[Event, None, list[AnswerGrade]]:
        rows = sampled.asked_of(self.rows, groups)
        # Grades that are in the folder are not asked for again: the key of a grade is all that it depends on.
        work = grading.grade(
            folder, rows, sampled.answers_of(rows, groups), [self.grader], self.judge, at_once=self.at_once
        )
        grades = yield from sampled.shown_as(Progress("train", step, self.recipe.num_steps, what="grades"), work)
        # A field misspelt, a service that is gone: every further step would be sampled and paid for nothing.
        if all(grade.score is None for grade in grades):
            raise RequestError(
                f"rft.grader: {self.grader.name} has given none of {len(grades)} answers a grade: {grades[0].error}; "
                f"{self._cost}; fix the grader."
            )
        return grades

    def _warned(
        self, groups: Sequence[Group], grades: Sequence[AnswerGrade], rewards: signals.Rewards
    ) -> Generator[Event, None, None]:
        """Say what hinders learning, each thing when it is met first and when it has doubled."""
        problem = signals.no_spread(rewards)
        self.spent.barren += bool(problem)
        if problem and _is_power_of_two(self.spent.barren):
            times = f" (in {self.spent.barren} rollouts by now)" if self.spent.barren > 1 else ""
            yield Note(f"{problem}{times}; {self._cost}")
        if problem := signals.ungraded(self.grader.name, grades):
            self.spent.ungraded += 1
            if _is_power_of_two(self.spent.ungraded):
                yield Note(f"{problem}; {self._cost}")
        texts = [answer.text for group in groups for answer in group.answers]
        if not self.spent.reported_length and (problem := signals.by_length(texts, [grade.score for grade in grades])):
            self.spent.reported_length = True
            yield Note(f"{problem}; {self._cost}")

    @property
    def _cost(self) -> str:
        """What has been spent on what a warning is about."""
        seconds = self.spent.sampling + self.spent.grading
        took = f"so far {self.spent.answers:,} answers were sampled and graded in {seconds:,.0f} s"
        return f"{took}; {paid}" if (paid := self.paid()) else took


def _is_power_of_two(count: int) -> bool:
    return count & (count - 1) == 0
