"""The primitives of training by a remote service, each request carried out once (driver.py)."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from runner.models.chat.image_tokens import images_among
from runner.models.chat.tokenizer import TokenRow
from runner.record.samples import Sampling
from runner.remote.engine import incomplete
from runner.remote.engine.doubt import LATE, InDoubt, another_driver
from runner.remote.engine.driver import Driver
from runner.remote.engine.ledger import Best, Checkpoint, Drawn
from runner.remote.engine.ledger import Sampled as SampledTokens
from runner.remote.engine.service import Answer, Datum, FloatArray, Save, Score, Step, content_of
from runner.remote.target import Limits
from runner.training.by_primitives import ByPrimitives, gradient
from runner.training.engine import Adam, OnAnswer, Pending, Sampled, TokenLogps, ignore_answer
from runner.training.evaluated import Saved
from runner.training.examples import Example, Examples, num_learned
from runner.training.loss import Loss, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATUMS = 1024
"""The sequences that one request holds at most; `Limits` says how many tokens."""
IMAGE_BYTES = 16
"""As many bytes of images count as a token: no wire that is known has fewer for one."""
SAME_NATS = 0.05
"""Between two passes over the same rows, weights that nobody has changed differ by less, on average."""


class RemoteEngine(ByPrimitives):
    """A model in a session of a service."""

    def __init__(self, driver: Driver, limits: Limits) -> None:
        self.driver, self.limits, self.abilities = driver, limits, limits.abilities
        self.step = 0
        self.training_now = True
        """Whether requests are a part of training, which a replay repeats."""

    def forward(self, rows: Sequence[TokenRow]) -> TokenLogps:
        """Return the log-probabilities of rows' learned tokens."""
        return TokenLogps(self._scored(rows, kept=self.training_now))

    def forward_backward(self, rows: Sequence[TokenRow], weights: "NDArray[np.floating]") -> TokenLogps:
        """Add the gradient of -Σ weights · logps; return the log-probabilities."""
        return TokenLogps(self._learned(rows, weights)())

    def forward_backward_custom(self, examples: Sequence[Example], loss: Loss) -> Pending:
        """Add the gradient of the weighted mean of rows' losses: in one pass where it is linear, else in two."""
        rows = [example.tokens for example in examples]
        if loss.method.linear and not loss.by_token:
            # The slope is the same everywhere: no pass has to find out first where the model is.
            nowhere = TokenLogps(np.zeros(sum(sum(example.num_learned) for example in examples)))
            weights, _ = gradient(examples, loss, nowhere)
            added = self._learned(rows, weights)
            return lambda: numbers(gradient(examples, loss, TokenLogps(added()))[1])
        before = self.forward(rows)
        weights, values = gradient(examples, loss, before)
        added, known = self._learned(rows, weights, before.logps), numbers(values)
        # They are known before, and of no use where the weights were not what they are taken for.
        return lambda: (added(), known)[1]

    def evaluate(self, examples: Examples, loss: Loss) -> Generator[int, None, Rows]:
        """Return each row's loss, weight, and those metrics that are numbers; yield how many rows are done."""
        rows = yield from super().evaluate(examples, loss)
        return [numbers(row) for row in rows]

    def optim_step(self, adam: Adam) -> Pending:
        """Change the weights by the gradient; return its norm, where the service reports it."""
        taken = self.driver.start(Step(adam), self.step)
        self.step += 1

        def norm() -> dict[str, float]:
            # SkyRL calls it skyrl.ai/grad_norm; a service may report none at all.
            norms = [value for name, value in taken().values.items() if name.endswith("grad_norm")]
            return {"grad_norm": norms[0]} if norms else {}

        return norm

    def save_state(self, saved: Saved) -> None:
        """Save weights and optimizer at the service, under the number of steps done."""
        ledger = self.driver.ledger
        if ledger.checkpoint is not None and ledger.checkpoint.saved.step == saved.step and not ledger.entries:
            return
        behind = self.driver.replays
        try:
            path = self._save(Save(f"step-{saved.step:08d}", ttl_seconds=self.limits.ttl_seconds))
        except InDoubt:
            if not behind:
                raise
            # Stopped in a replay: the model is further than the loop, and the last checkpoint is not touched.
            return
        ledger.add(Checkpoint(saved, path))
        self.driver.rewind()

    def load_state(self) -> Saved | None:
        """Return what was saved last. The session begins there, or is replayed from there (driver.py)."""
        # The loop asks the same again from here on, in the same order.
        self.driver.rewind()
        checkpoint = self.driver.ledger.checkpoint
        self.step = checkpoint.saved.step if checkpoint else 0
        return checkpoint.saved if checkpoint else None

    def save_best(self) -> None:
        """Save the weights that were just evaluated."""
        path = self._save(Save(f"best-{self.step:08d}", ttl_seconds=self.limits.ttl_seconds))
        self.driver.ledger.add(Best(self.step, path))

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_answer: OnAnswer = ignore_answer
    ) -> list[list[Sampled]]:  # fmt: skip
        """Return answers to prompts by the weights as they are, which are saved for it.

        Each prompt is asked, and paid for, once: the ledger has the answers to those that a killed process had asked.
        """
        ledger = self.driver.ledger
        questions = [question(self.step, prompt, sampling) for prompt in prompts]
        left = [place for place, name in enumerate(questions) if name not in ledger.drawn]
        if left:
            # By a checkpoint and not the session's own sampler: after a kill the same weights are asked again. No
            # replay asks for it, as answers that are known are not sampled.
            save = Save(f"answers-{self.step:08d}", "sampler", self.limits.ttl_seconds)
            path = self.driver.ask(save, self.step).path
            drawn = self.answers(
                path, [prompts[place] for place in left], sampling, [questions[place] for place in left]
            )
            for place, found in zip(left, drawn, strict=True):
                for number, each in enumerate(found):
                    on_answer(place, number, each)
        answers = [[each.answer() for each in ledger.drawn[name]] for name in questions]
        # By the weights that have sampled, as nothing has been learned since. No replay asks for it, as answers that
        # are known are not sampled: to be sent again costs its price.
        return incomplete.completed(prompts, answers, lambda rows: self._scored(rows, kept=False))

    def answers(
        self, path: str, prompts: Sequence[Sequence[int]], sampling: Sampling, names: Sequence[str] | None = None
    ) -> Iterator[Sequence[Sampled]]:
        """Yield the answers to each prompt by a checkpoint's weights, or by the base model's where there is no path.

        With `names` the ledger keeps them by these.
        """
        answering, session = self.driver.service.answering, self.driver.handle.session
        # A sampler for all prompts: making one is a request of its own.
        ends, sampler = self.limits.ends(), answering.sampler(session, path, self.limits.base_model)
        for prompt, name in zip(prompts, names or [""] * len(prompts), strict=True):
            found = answering.sample(sampler, prompt, sampling, ends)
            kept = tuple(map(Drawn.of, found)) if name else ()
            # Paid for, and so counted, when it is there: the number of tokens is not known before.
            self.driver.ledger.add(SampledTokens(len(prompt), sum(len(each.ids) for each in found), name, kept))
            yield found

    def _save(self, save: Save) -> str:
        answer = self.driver.perform(save, self.step) if self.training_now else self.driver.ask(save, self.step)
        return answer.path

    def _scored(self, rows: Sequence[TokenRow], kept: bool) -> FloatArray:
        nothing = np.zeros(sum(count for row in rows for count in num_learned(row)))
        scores = [Score(part, learns=False) for part in _requests(rows, nothing, self.limits.tokens_per_request)]
        if not kept:
            return np.concatenate([self.driver.ask(score, self.step).array for score in scores])
        begun = [self.driver.start(score, self.step) for score in scores]
        return np.concatenate([answer().array for answer in begun])

    def _learned(
        self, rows: Sequence[TokenRow], weights: "NDArray[np.floating]", before: "NDArray[np.floating] | None" = None
    ) -> Callable[[], FloatArray]:
        """Add a gradient, and return what waits for the log-probabilities, which have to be those of `before`."""
        begun, at = [], 0
        for part in _requests(rows, weights.astype(np.float64), self.limits.tokens_per_request):
            size = sum(map(sum, (datum.learned for datum in part)))
            known = None if before is None else before[at : at + size]
            begun.append(
                self.driver.start(Score(part, learns=True), self.step, partial(_demand_same, self.driver, known))
            )
            at += size
        return lambda: np.concatenate([answer().array for answer in begun])


def question(step: int, prompt: Sequence[int], sampling: Sampling) -> str:
    """Return what is asked of the weights after so many steps, as a name."""
    asked = msgspec.json.encode([step, list(prompt), sampling])
    return sha256(asked + content_of(images_among(prompt))).hexdigest()[:32]


def numbers(values: Mapping[str, float]) -> dict[str, float]:
    """Return values without those that are not known: token accuracy, as services do not tell the likeliest tokens."""
    # nan is no JSON, and so nothing for a journal; a loss that is none ends the run with a sentence of its own.
    return {name: value for name, value in values.items() if name == "loss" or not np.isnan(value)}


def datums(rows: Sequence[TokenRow], weights: FloatArray) -> Iterator[Datum]:
    """Yield each answer of rows as a sequence of its own, with the weights of its learned tokens."""
    at = 0
    for row in rows:
        for answer, learned in zip(row.answers, row.learned, strict=True):
            # A sequence of its own: services share no prompt between sequences, so that a pair pays for it twice.
            ids = [*row.prompt, *answer]
            # Of N + 1 tokens N are predicted, the first one never.
            mask = np.array([False] * len(row.prompt) + list(learned))[1:]
            own = np.zeros(len(mask))
            own[mask] = weights[at : at + int(mask.sum())]
            at += int(mask.sum())
            yield Datum(ids, own, mask.tolist(), row.images)


def _requests(rows: Sequence[TokenRow], weights: FloatArray, most_tokens: int) -> Iterator[list[Datum]]:
    """Yield rows as sequences in requests that a service does not have to cut."""
    part, tokens = list[Datum](), 0
    for datum in datums(rows, weights):
        size = len(datum.ids) + sum(len(each.image.url) for each in datum.images) // IMAGE_BYTES
        if part and (len(part) == DATUMS or tokens + size > most_tokens):
            yield part
            part, tokens = [], 0
        # A sequence that is larger than a request may be is sent alone: the service says what it thinks of it.
        part.append(datum)
        tokens += size
    if part:
        yield part


def _demand_same(driver: Driver, before: "NDArray[np.floating] | None", now: Answer) -> None:
    """Raise `RunnerError`, or `InDoubt`, where the weights have changed between two passes over the same rows."""
    if before is None or not len(before):
        return
    opened, apart = driver.ledger.opened, float(np.abs(before - now.array).mean())
    if opened is None or apart <= max(SAME_NATS, 20 * opened.noise):
        return
    what = f"its weights have changed between two requests ({apart:.2g} nats a token)"
    if driver.ledger.resent:
        raise InDoubt(f"{what}: {LATE}")
    raise another_driver(opened.handle.session, what)
