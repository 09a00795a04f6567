"""What a quantised export costs: the run's own graders on its answers and on the run's, row by row, with intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from runner import backends
from runner.compare.difference import Difference
from runner.compare.models import compare_models
from runner.compare.sentences import amount, sentence
from runner.data.rows import Prompt
from runner.evaluation import configured, evaluate
from runner.hosted.prompts import chat_messages, chat_tools
from runner.plan import Run
from runner.record.journal import read_state
from runner.record.samples import Reply, Sampling
from runner.request.keys import Request
from runner.serving import client, engines
from runner.serving.server import Served, served


class Exported:
    """An export behind an engine's address, as something that answers; known by what it was made of, not by address."""

    def __init__(self, at: Served, identity: str) -> None:
        self.at, self.identity = at, identity

    def close(self) -> None:
        """Nothing is held: the engine belongs to whoever started it."""

    def replies(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Sequence[Reply]]:
        """Yield the answers to each prompt. Raises `ServiceError` where one cannot be had."""
        for prompt in prompts:
            yield [
                client.chat(
                    self.at.url, self.at.model, chat_messages(prompt.turns), sampling.max_new_tokens,
                    **chat_tools(prompt), temperature=sampling.temperature, top_p=sampling.top_p,
                    seed=sampling.seed + number,
                )
                for number in range(sampling.per_prompt)
            ]  # fmt: skip


def cost(run: Run, folder: Path, program: str, identity: str) -> list[str]:
    """Return how the grades of an export differ from those of the run's model, in sentences; none without graders.

    The answers and grades are an evaluation of their own, which `runner.compare` shows side by side.
    """
    from runner.execution import execute  # brings MLflow's sender

    request = _without_judges(run.request)
    if not configured.of_request(request) or program not in engines.names():
        return []
    # Both answer now: a run's own answers may be of another type of numbers, or of rows that have changed since.
    tuned = backends.of(run).respondents(run, read_state(run.folder))["tuned"]
    with served(engines.load(program), folder, "export") as found:
        models = {"tuned": tuned, folder.name.lstrip("."): Exported(found, identity)}
        planned = evaluate.plan(request, models, run.folder.parent)
        with execute.alone(planned.folder):
            execute.to_its_end(evaluate.carry_out(planned), lambda event: None)
    return [_with_interval(each) for each in compare_models(planned.folder).differences]


def _with_interval(found: Difference) -> str:
    """Return a difference in words; one that does not show on these rows, too, has an interval."""
    said, low, high = sentence(found), amount(found.kind, found.low), amount(found.kind, found.high, True)
    return said if "interval" in said else f"{said}; 95% interval {low} to {high}"


def _without_judges(request: Request) -> Request:
    """Return a request without the graders that ask a judge: `runner.evaluate` asks before it spends money."""
    wanted = request.evaluation.graders
    made = configured.named(wanted)
    free = [each for each, grader in zip(wanted, made, strict=True) if not list(grader.models())]
    return replace(request, evaluation=replace(request.evaluation, graders=free))
