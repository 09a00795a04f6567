"""The steps of a run at a remote engine. Each takes up the session that the ledger knows, or opens one.

prepare    the tokenizer, the rows on disk as tokens                             (in the user's cache)
train      the loop, with checkpoints at the service                             ledger.jsonl
save       the result: a state, a sampler's weights, the adapter here if it can  model/
evaluate   the result on the held-out rows, row by row                           evaluation.jsonl
sample     held-out prompts answered by the base and the tuned model             samples.json
unload     the session ended
"""

from collections.abc import Callable, Generator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar

import msgspec

from runner import methods
from runner.backends import Events, Result
from runner.data.rows import row_id
from runner.evaluation import on_the_way
from runner.models import remote_model
from runner.record import layout, samples
from runner.record.events import Event, Metrics, Note, Progress
from runner.remote import respondent, result
from runner.remote.engine.doubt import InDoubt
from runner.remote.engine.remote_engine import RemoteEngine
from runner.remote.engine.service import SessionGone
from runner.remote.engine.session import MOST_SESSIONS, Done, Session, Work
from runner.remote.money.budget import Budget, stored_step
from runner.remote.reference import RunRows
from runner.remote.target import Place, Target
from runner.training.evaluation import evaluate, mean
from runner.training.examples import Mismatched
from runner.training.loop import train
from runner.training.recipe import Recipe

if TYPE_CHECKING:
    from runner.plan import Run


class Trained(msgspec.Struct, frozen=True):
    """The result of the step `train`: the step whose weights are the result, and the state with them."""

    step: int
    num_steps: int
    state: str


class RemoteSteps:
    """A run's work at a service, and what it holds in memory between steps."""

    rows_of: ClassVar[type[RunRows]] = RunRows

    def __init__(self, run: "Run", results: Mapping[str, Result], target: Target) -> None:
        self.run, self.results, self.target = run, results, target
        self.method = methods.load(run.plan.method)
        self.session = Session(run, target)
        self.engine = RemoteEngine(self.session.driver, target.limits)
        self.rows = self.rows_of(run, target, self.session.service.endpoint)

    def prepare(self) -> Events:
        """Fetch the tokenizer, store the rows, and find those that cannot be learned."""
        yield Progress("prepare", 0, 0, what="reading the rows")
        _ = self.rows.data.rows
        yield from self.rows.data.check_long_rows()
        return {"endpoint": self.session.service.endpoint, "base_model": self.target.origin.base_model}

    def train(self) -> Events:
        """Run the training loop from where the ledger ends."""
        return (yield from self.session.closing_on_error(self._train()))

    def save(self) -> Events:
        """Save the result at the service, and fetch the adapter."""
        return (yield from self._at(lambda: result.save(self.run, self.engine, self.target, self._trained)))

    def evaluate(self) -> Events:
        """Judge the result on every held-out row."""
        if not len(self.rows.data.rows.get("validation", ())):
            yield Note(
                "no held-out rows, so nothing to evaluate; set dataset.validation or dataset.validation_fraction"
            )
            return {}
        return (yield from self._at(self._evaluate))

    def sample(self) -> Events:
        """Answer held-out prompts with the base and with the tuned model."""
        if not self.rows.data.rows_to_ask:
            return {}
        replies = {}
        # The base model last: where a session answers for its own model alone, that takes a session of its own.
        for number, name in enumerate(("tuned", "base")):
            yield Progress("sample", number, 2, what=f"the {name} model's answers")
            replies[name] = yield from self._at(partial(self._answers, name), base=name == "base")
        rows = self.rows.data.rows_to_ask
        return (yield from samples.keep(self.run.folder, rows, replies["base"], replies["tuned"]))

    def unload(self) -> Events:
        """End the session."""
        yield from self.session.end("success")
        used = self.budget.used  # of all sessions, what was trained again included
        yield Note(f"used {used} tokens{self.budget.in_words(used)}")
        self.session.service.disconnect()
        return {}

    def _train(self) -> Events:
        yield Progress("train", 0, self.recipe.num_steps)
        barren = 0
        while True:
            tried = self.session.driver.ledger.checkpoint
            self.budget.demand_room()
            yield from self.session.begin(self.rows.tokens("train"))
            try:
                step = yield from self._loop()
                break
            except (InDoubt, SessionGone) as doubt:
                # Not for ever: sessions that end before the next checkpoint get nowhere, and each may be paid for.
                barren = 0 if self.session.driver.ledger.checkpoint is not tried else barren + 1
                if barren == MOST_SESSIONS:
                    raise
                yield from self.session.start_over(str(doubt))
        ledger = self.session.driver.ledger
        assert ledger.checkpoint is not None
        # The loop has saved its last state; the best one has a checkpoint of its own.
        state = ledger.checkpoint.path if step == ledger.checkpoint.saved.step else ledger.best[step]
        return {"step": step, "num_steps": self.recipe.num_steps, "state": state}

    def _loop(self) -> Generator[Event, None, int]:
        """Train in the session that is open, with the reference computed before its first step."""
        if self.method.needs_reference(self.run.hyperparameters):
            yield from self.rows.ensure_reference(self.engine)
        rows, held_out = self.rows.examples("train"), self.rows.examples("validation")
        answers = on_the_way.of_run(self.run, self.rows.data.rows_to_ask, self.rows.tokenizer)
        self.engine.training_now = True  # the reference's passes are not: they are kept in a file of their own
        mismatched = Mismatched(self.rows.mismatched("train"), self.rows.mismatched("validation"))
        work = train(self.engine, self.recipe, rows, held_out, answers, mismatched)
        step = yield from self.budget.watched(work, self.session)
        if answers is not None:
            yield from answers.chance(step)
        return step

    def _evaluate(self) -> Events:
        self.engine.training_now = False
        held_out, mismatched = self.rows.examples("validation"), self.rows.mismatched("validation")
        rows = yield from evaluate(self.engine, held_out, self.recipe.loss, mismatched=mismatched)
        lines = [
            msgspec.json.encode({"row": row_id(row).hex(), **values})
            for row, values in zip(self.rows.data.rows["validation"], rows, strict=True)
        ]
        (self.run.folder / layout.HELD_OUT).write_bytes(b"\n".join(lines) + b"\n")
        values = mean(rows, self.recipe.sources)
        yield Metrics(self._trained.step, values)
        return dict(values)

    def _answers(self, name: str) -> Work[list[list[samples.Reply]]]:
        """Return the answers of the base or the tuned model to the held-out prompts."""
        prompts = [self.rows.tokenizer.encode_prompt(row.given) for row in self.rows.data.rows_to_ask]
        # By the file and not by the journal: it is what `runner.chat` will ask, too.
        path = result.demand(self.run).sampler if name == "tuned" else self.target.origin.sampler
        found = self.engine.answers(path, prompts, samples.sampling(self.run.request))
        yield from ()  # nothing to report from within
        return [respondent.replies(self.rows.tokenizer, answers) for answers in found]

    def _at(self, work: Callable[[], Work[Done]], base: bool = False) -> Work[Done]:
        """Do some work in a session whose model is the result; with `base` in one that can ask the base model."""
        trained, ledger, saved = self._trained, self.session.driver.ledger, remote_model.read(self.run.folder)
        place = Place(trained.state, trained.step)
        # The checkpoints of training expire: a later command begins at the one that is kept for good.
        if saved is not None and (ledger.opened is None or ledger.at != place.state):
            place = Place(saved.state, trained.step)
        # A session that answers for its own model alone has to have that of the start.
        if base and not self.session.service.answering.anywhere:
            place = Place()
        self.engine.step = place.step
        at = self.session.at(self.rows.tokens("train"), place, work)
        return (yield from self.session.closing_on_error(at))

    @cached_property
    def recipe(self) -> Recipe:
        """What the training loop is to do."""
        return self.target.recipe(self.run, self.method)

    @cached_property
    def budget(self) -> Budget:
        """What the run may cost, and has cost."""
        step = stored_step(self.recipe, self.rows.data.tokens)
        return Budget(self.run, self.target, self.recipe, step, self.session.driver.ledger)

    @property
    def _trained(self) -> Trained:
        return msgspec.convert(self.results["train"], Trained)
