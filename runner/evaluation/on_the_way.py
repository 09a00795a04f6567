"""Checkpoints judged by what their answers are worth: `evaluation.keep_by=GRADER`, for `keep=best` and `patience`.

checkpoint_grades/step-N/    the answers after N optimizer steps and their grades, as in a run's folder
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner import graders
from runner.errors import RequestError
from runner.evaluation import configured, grading, summary
from runner.evaluation.judges import judge_of
from runner.evaluation.lockstep import in_lockstep
from runner.graders import Grader, Json
from runner.models.chat.tokenizer import ChatTokenizer
from runner.plan import Run
from runner.record import graded, layout, samples
from runner.record.events import Event, Note
from runner.record.graded import AnswerGrade, Asked
from runner.record.samples import Reply
from runner.request.keys import Evaluation, Request
from runner.training.engine import Engine, Sampled

TUNED = "tuned"
LEAST_ROWS = 10
"""With fewer rows nothing is said of chance."""


def grader_of(request: Request) -> Grader | None:
    """Return the grader that decides which weights are kept; None where the held-out loss does.

    Raises `RequestError` where it is no grader of the request, compares with another model, or decides nothing.
    """
    keys = request.evaluation
    if keys.keep_by is None:
        return None
    graders = {each.name: each for each in configured.of_request(request)}
    found = graders.get(keys.keep_by)
    if found is None or found.compares:
        allowed = ", ".join(name for name, each in graders.items() if not each.compares) or "none is configured"
        raise RequestError(
            f"evaluation.keep_by: got {keys.keep_by}; allowed: a grader that looks at one answer ({allowed})."
        )
    if keys.keep == "last" and keys.patience is None:
        raise RequestError("evaluation.keep_by: decides nothing; add evaluation.keep=best or evaluation.patience=2.")
    if samples.most(request) == 0:
        raise RequestError("evaluation.samples: got 0, but evaluation.keep_by needs answers to grade.")
    return found


def refuse_judging(wanted: Evaluation) -> None:
    """Raise `RequestError` for keys that need held-out rows."""
    needing = {"keep=last": wanted.keep == "best", "patience=null": wanted.patience is not None}
    for instead, needed in needing.items():
        key = instead.partition("=")[0]
        if needed:
            raise RequestError(
                f"evaluation.{key}: got {getattr(wanted, key)}, but there are no held-out rows to judge by; "
                f"set dataset.validation or dataset.validation_fraction, or {instead}."
            )


def identity(request: Request) -> dict[str, Json]:
    """Return what decides which weights are kept and what is measured on the way, as a plan has it."""
    keys, grader = request.evaluation, grader_of(request)
    found: dict[str, Json] = {"every": keys.every, "keep": keys.keep, "patience": keys.patience}
    # Not in every plan: graders that only measure do not decide the result, and other ones must not train again.
    if grader is not None:  # its code and its prompts then decide which weights are kept
        found |= {"keep_by": keys.keep_by, "grader": graders.configuration(grader), "answers": samples.key(request)}
    return found


@dataclass(frozen=True)
class CheckpointAnswers:
    """The answers of a run's model on the way, graded by one grader."""

    run: Run
    rows: Sequence[Asked]
    grader: Grader
    tokenizer: ChatTokenizer

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return f"eval/{self.grader.name}"

    def graded(self, engine: Engine, step: int) -> Generator[Event, None, dict[str, float]]:
        """Return the mean score of the answers after so many optimizer steps.

        Raises `RequestError` where the grader has given no answer a score, as nothing could be decided then.
        """
        # All ranks sample, as sharded weights need each of them; only rank 0 grades.
        prompts = [self.tokenizer.encode_prompt(row.given) for row in self.rows]
        found = engine.sample(prompts, samples.sampling(self.run.request))
        replies = [[self._reply(each) for each in answers] for answers in found]
        return (yield from in_lockstep(self._grade(replies, step)))

    def _reply(self, found: Sampled) -> Reply:
        return Reply(found.text(self.tokenizer), found.ended)

    def _grade(self, replies: Sequence[Sequence[Reply]], step: int) -> Generator[Event, None, dict[str, float]]:
        folder, keys = self._folder(step), self.run.request.evaluation.judge
        # A folder of its own for each step: a resumed run finds the grades that were paid for.
        folder.mkdir(parents=True, exist_ok=True)
        answers = samples.answers(TUNED, self.rows, replies)
        graded.write(folder / layout.ANSWERS, answers)
        with judge_of(keys, [self.grader]) as judge:
            grades = yield from grading.grade(
                folder, self.rows, answers, [self.grader], judge, at_once=keys.concurrency
            )
        means = summary.means(grades, TUNED, self.rows)
        if not means:
            error = summary.first_error(grades, self.grader.name)
            raise RequestError(f"evaluation.keep_by: {self.grader.name} has given no answer a score: {error}")
        return {f"eval/{name}": mean for name, mean in means.items()}

    def chance(self, kept: int) -> Generator[Event, None, None]:
        """Say which later or earlier weights do not differ significantly from those kept, by the same rows."""
        import numpy as np

        from runner.compare.interval import estimate

        by_step = {int(path.name.rpartition("-")[2]): path for path in self._folder(0).parent.glob("step-*")}
        best = self._scores(by_step.pop(kept)) if kept in by_step else {}
        alike = []
        for step, path in sorted(by_step.items()):
            other = self._scores(path)
            common = sorted(best.keys() & other.keys())
            # The untrained model (step 0) is no candidate, so being like it says nothing about the choice.
            if step and len(common) >= LEAST_ROWS:
                ours, theirs = (np.array([[side[row] for row in common]]) for side in (best, other))
                low, high = estimate(ours, theirs).interval()
                alike += [str(step)] if low <= 0 <= high else []
        if alike:
            yield Note(
                f"kept after {kept} steps by {self.grader.name}; the weights after {', '.join(alike)} steps are not "
                f"significantly different with these {len(best)} rows"
            )

    def _folder(self, step: int) -> Path:
        return self.run.folder / layout.CHECKPOINT_GRADES / f"step-{step}"

    def _scores(self, folder: Path) -> dict[str, float]:
        grades = graded.read(folder / layout.GRADES, AnswerGrade)
        return {row: each[self.grader.name] for row, each in graded.row_scores(grades, TUNED).items()}


def of_run(run: Run, rows: Sequence[Asked], tokenizer: ChatTokenizer) -> CheckpointAnswers | None:
    """Return what grades the answers of a run's checkpoints; None where the held-out loss decides."""
    grader = grader_of(run.request)
    return None if grader is None else CheckpointAnswers(run, rows, grader, tokenizer)
