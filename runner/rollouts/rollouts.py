"""The prompts of a step answered by the policy, graded, and turned into a batch: what reinforcement learns from."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path

import msgspec

from runner.data.rows import Row
from runner.errors import RequestError
from runner.evaluation import grading
from runner.graders import Grader, Judge
from runner.methods.rft import RFT
from runner.methods.rft.advantages import advantages
from runner.methods.rft.losses import LOSSES
from runner.models.chat_tokenizer import ChatTokenizer, TokenRow
from runner.record import graded, layout
from runner.record.events import Event, Metrics, Note, Progress
from runner.record.graded import AnswerGrade
from runner.record.samples import Sampling
from runner.rollouts import sampled, signals
from runner.rollouts.sampled import Group
from runner.training.batches import Batch
from runner.training.engine import Engine
from runner.training.examples import Example, Rewarded, num_learned
from runner.training.recipe import Recipe
from runner.training.schedule import batch

Reference = Callable[[Sequence[TokenRow]], list[list[float]]]
"""The log-probability of each learned token of some rows under the base model."""
OCCURRENCES = 101
"""Seeds a rollout: how often one prompt may occur in a batch before two of its rows have the same answers."""


@dataclass
class Spent:
    """What the rollouts of this process have taken, and how long nothing could be learned from them."""

    answers: int = 0
    seconds: float = 0.0
    barren: int = 0
    """Rollouts of which no group had any spread."""
    ungraded: int = 0
    """Rollouts in which an answer had no grade."""
    reported_length: bool = False


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

        Raises `RequestError` where the grader gives no answer a grade.
        """
        number = step // msgspec.convert(self.keys.updates_per_rollout, int)
        began, known = time.perf_counter(), (self._folder(number) / layout.SAMPLED).exists()
        # Kept before they are graded, and graded before anything is learned from them.
        groups = yield from self._sampled(engine, number, step)
        sampled_in = time.perf_counter() - began
        grades = yield from self._graded(groups, number, step)
        if not known:
            self.spent.answers += len(grades)
            self.spent.seconds += time.perf_counter() - began
            tokens = sum(len(answer.ids) for group in groups for answer in group.answers)
            seconds = {"sampling": sampled_in, "grading": time.perf_counter() - began - sampled_in}
            values = {f"system/{name}_seconds": each for name, each in seconds.items()}
            yield Metrics(step, values | {"system/sampled_tokens_per_second": tokens / sampled_in})
        # From here on all is a function of what is on the disk, so that a resumed step has the same result.
        rewards = signals.by_group(groups, grades)
        yield from self._warned(groups, grades, rewards)
        values = signals.figures(groups, grades) | {"without_spread": signals.without_spread(rewards)}
        return self._learned(groups, rewards, values)

    def _folder(self, number: int) -> Path:
        return self.folder / layout.ROLLOUTS / f"step-{number:08d}"

    def _sampled(self, engine: Engine, number: int, step: int) -> Generator[Event, None, Sequence[Group]]:
        """Return the answers of a rollout: those that are kept, else new ones, which are kept now."""
        path = self._folder(number) / layout.SAMPLED
        if path.exists():
            return graded.read(path, Group)
        yield Progress("train", step, self.recipe.num_steps, what="answers")
        places = batch(len(self.rows), self.recipe.hyperparameters.batch_size, self.recipe.seed, number)
        prompts = [self.tokenizer.encode_prompt(sampled.problem_of(self.rows[place]).given) for place in places]
        with engine.timed("answers"):
            groups = sampled.sample(engine, self.tokenizer, places, prompts, lambda turn: self._sampling(number, turn))
        path.parent.mkdir(parents=True, exist_ok=True)
        graded.write(path, groups)
        return groups

    def _sampling(self, number: int, turn: int) -> Sampling:
        keys = self.keys  # resolved, so that `convert` below only informs the type checker
        # From the rollout's number alone: a resumed run draws the same answers, whatever it has drawn before.
        seed = (self.recipe.seed * 1_000_003 + number) * OCCURRENCES + turn
        return Sampling(
            max_new_tokens=msgspec.convert(keys.max_new_tokens, int), per_prompt=msgspec.convert(keys.group_size, int),
            temperature=msgspec.convert(keys.temperature, float), seed=seed,
        )  # fmt: skip

    def _graded(
        self, groups: Sequence[Group], number: int, step: int
    ) -> Generator[Event, None, list[AnswerGrade]]:  # fmt: skip
        rows = [sampled.asked(sampled.problem_of(self.rows[group.row])) for group in groups]
        # Grades that are in the folder are not asked for again: the key of a grade is all that it depends on.
        work = grading.grade(
            self._folder(number), rows, sampled.answers_of(rows, groups), [self.grader], self.judge,
            at_once=self.at_once,
        )  # fmt: skip
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
        took = f"so far {self.spent.answers:,} answers were sampled and graded in {self.spent.seconds:,.0f} s"
        return f"{took}; {paid}" if (paid := self.paid()) else took

    def _learned(self, groups: Sequence[Group], rewards: signals.Rewards, values: dict[str, float]) -> Batch:
        """Return groups as what the loss is a function of; those that have no gradient only count in its mean."""
        keys, loss_type, loss = self.keys, LOSSES[self.keys.loss_type], self.recipe.loss
        beta = msgspec.convert(keys.beta, float)  # 0 where nothing is held to the base model
        tokens = [_token_row(group, keys.mask_truncated) for group in groups]
        # Not computed for the groups that are left out below, unless all are pulled towards the reference.
        references = self.reference(tokens) if beta else [None] * len(groups)
        if beta and loss_type.kl_in_reward:
            apart = [_apart(group, row, each) for group, row, each in zip(groups, tokens, references, strict=True)]
            values = values | {"kl": _mean_kl(apart, tokens)}
            rewards = [_less(own, beta, each) for own, each in zip(rewards, apart, strict=True)]
        # The policy that sampled is the one that learns, so its log-probabilities are known from the pass itself.
        once = keys.updates_per_rollout == 1
        examples = [
            Example(row, None, rewarded=Rewarded(
                tuple(advantages(own, loss_type.baseline)), None if once else _old_logps(group, row),
                None if loss_type.kl_in_reward else reference,
            ))
            for group, row, own, reference in zip(groups, tokens, rewards, references, strict=True)
        ]  # fmt: skip
        pulled = beta > 0 and not loss_type.kl_in_reward
        kept = [each for each in examples if any(num_learned(each.tokens)) and (pulled or _has_gradient(each))]
        # The mean is over the whole batch, as if the others had been computed: their gradient is zero.
        return Batch(kept, replace(loss, whole=loss.total(examples)), values)


def _has_gradient(example: Example) -> bool:
    assert example.rewarded is not None
    learned = zip(num_learned(example.tokens), example.rewarded.advantages, strict=True)
    return any(count and advantage for count, advantage in learned)


def _token_row(group: Group, mask_truncated: bool) -> TokenRow:
    """Return a group as a row: its prompt once, every token of its answers learned, but of those that are masked."""
    learned = tuple([each.ended or not mask_truncated] * len(each.ids) for each in group.answers)
    return TokenRow(group.prompt, tuple(each.ids for each in group.answers), learned)


def _old_logps(group: Group, row: TokenRow) -> list[float]:
    """Return the log-probability of each learned token as it was sampled."""
    pairs = zip(group.answers, row.learned, strict=True)
    return [logp for each, learned in pairs for logp, wanted in zip(each.logps, learned, strict=True) if wanted]


def _apart(group: Group, row: TokenRow, reference: Sequence[float] | None) -> list[float]:
    """Return of each answer the log-ratio of the policy that sampled to the reference, in nats."""
    assert reference is not None
    old, start, found = _old_logps(group, row), 0, list[float]()
    for count in num_learned(row):
        found.append(sum(old[start : start + count]) - sum(reference[start : start + count]))
        start += count
    return found


def _mean_kl(apart: Sequence[Sequence[float]], tokens: Sequence[TokenRow]) -> float:
    return sum(map(sum, apart)) / max(1, sum(sum(num_learned(row)) for row in tokens))


def _less(rewards: Sequence[float | None], beta: float, apart: Sequence[float]) -> list[float | None]:
    """Return rewards with beta · log-ratio taken off."""
    assert not any(map(isnan, apart))
    return [None if own is None else own - beta * each for own, each in zip(rewards, apart, strict=True)]


def _is_power_of_two(count: int) -> bool:
    return count & (count - 1) == 0
