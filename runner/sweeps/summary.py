"""The summary of a sweep: before it starts, what it does and takes; after it, which run is best, and what failed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from runner import backends, planning
from runner.cost import Cost, duration
from runner.errors import RunnerError, StopAsked
from runner.record import layout
from runner.record import outcome as record_outcome
from runner.record.files import write_json
from runner.sweeps import Summary, Sweep, Trial, keep
from runner.terminal import console
from runner.tracking.follower import Follower

if TYPE_CHECKING:
    from runner.compare.results import Result
    from runner.plan import Proposal
    from runner.tracking.sweep_run import Parent

SHOWN = 40
"""So many trials are listed at most before a sweep starts."""


class TrialsError(RunnerError):
    """Some trials of a sweep failed or were stopped; the others are done."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def show_plan(sweep: Sweep, finished: Collection[str]) -> None:
    """Print the trials of a sweep, and which of them are finished."""
    rows = []
    for trial in sweep.trials[:SHOWN]:
        begun = trial.run is not None and (trial.run.folder / layout.JOURNAL).exists()
        state = "finished" if trial.name in finished else "resumes" if begun else "new"
        # It has no plan, hence no folder, before the run that it starts from has ended.
        place = trial.run.folder.name if trial.run else f"from {trial.request.model.source}, planned in its turn"
        rows.append([trial.name, state, place])
    more = len(sweep.trials) - len(rows)
    rows += [[f"… and {more} more", "", ""]] if more else []
    todo = len(sweep.trials) - len(finished)
    title = f"{sweep.folder.name}: {len(sweep.trials)} trials, {len(finished)} finished before, {todo} to do"
    console.table(title, ["trial", "state", "run"], rows, fold=False)


def show_forecast(todo: Sequence[Trial]) -> None:
    """Print what trials share, and what they take together, as far as that is known."""
    proposals = [each.proposal for each in todo if each.proposal]
    if not proposals:
        return
    plans = [each.run.plan for each in proposals]
    models = list(dict.fromkeys(each.model.source.partition("@sha256")[0] for each in plans))
    data = list(dict.fromkeys((each.train.rows, each.validation and each.validation.rows) for each in plans))
    rows = ", ".join(f"{train:,} rows" + (f" and {held:,} held out" if held else "") for train, held in data)
    hosted = any(backends.load(each.backend).hosted for each in plans)
    done = "read, counted and uploaded" if hosted else "read and tokenised"
    console.say(f"shared: {', '.join(models)}; {rows}: {done} once, not once per trial")
    takes = _taken(planning.total_cost(proposals))
    if len(proposals) < len(todo):
        takes += f", besides {len(todo) - len(proposals)} that are planned in their turn"
    console.say(f"takes: {takes}")
    for title, text in _of_the_service(proposals):
        console.say(f"{title}: {text}")
    console.say()


def _of_the_service(proposals: Sequence["Proposal"]) -> list[tuple[str, str]]:
    """Return what a hosted service takes at a time and what it warns of, once for each model."""
    one_each = {(each.run.plan.backend, each.run.plan.model.source): each for each in proposals}
    hosted = [each for (backend, _), each in one_each.items() if backends.load(backend).hosted]
    lines = (line for each in hosted for line in backends.of(each.run).forecast(each, None))
    return list(dict.fromkeys(line for line in lines if line[0] in ("limits", "warning")))


def _taken(cost: Cost) -> str:
    parts = ["time not known" if cost.seconds is None else f"about {duration(cost.seconds)} of training"]
    if cost.dollars is None or cost.dollars:
        parts.append("price not known" if cost.dollars is None else f"about ${cost.dollars:,.2f}")
    return ", ".join(parts)


def confirm_price(todo: Sequence[Trial]) -> None:
    """Ask whether trials may cost what they do, where that is above `max_price`; raise `RequestError` if not."""
    # Shared by all, as `max_price` is no key to vary.
    if todo and todo[0].request.max_price is not None:
        cost = planning.total_cost([each.proposal for each in todo if each.proposal])
        console.confirm_price(cost.dollars, todo[0].request.max_price)


def conclude(sweep: Sweep, parent: "Parent", codes: Mapping[str, int], metric: str | None) -> None:
    """Compare the trials, write it down, here and in MLflow; raise `TrialsError` where some failed."""
    keep(sweep)
    parent.sweep = sweep
    _catch_up(sweep)
    content = _summed_up(sweep, codes, metric)
    console.say()
    problem = parent.close(content, max(codes.values(), default=0))
    if problem:
        console.say(f"note: MLflow could not be reached ({problem}); the same command sends what is missing")
    _raise_for(codes)


def _catch_up(sweep: Sweep) -> None:
    """Send to MLflow what could not be sent when a trial ended; those that have all are not touched."""
    # What one trial's follower could not send, as the server was down, goes now.
    follower = Follower(list(sweep.runs.values()))
    for run in sweep.runs.values():
        content = record_outcome.read(run.folder)
        if content is not None:
            follower.finish(run, content["status"])
    follower.end()


def _summed_up(sweep: Sweep, codes: Mapping[str, int], metric: str | None) -> Summary:
    """Compare what is there, show and write it; return the summary as a JSON value."""
    from runner.compare import output, results, verdict

    begun = {name: run.folder for name, run in sweep.runs.items() if (run.folder / layout.PLAN).exists()}
    found = {name: results.read(folder) for name, folder in begun.items()}
    # A trial that was pruned or stopped has metrics, too, and is compared by the last of them.
    ended = [result for result in found.values() if result.metrics]
    failed = [_failure(name, found.get(name), code) for name, code in codes.items() if code]
    seconds = sum(sum(result.seconds.values()) for result in found.values())
    content: Summary = {"trials": len(sweep.trials), "failed": failed, "seconds": seconds}
    for each in failed:
        console.complain(f"{each['name']}: {each['status']}: {each['message']}")
    if ended:
        comparison = verdict.make(ended, metric)
        output.write(comparison, sweep.folder)
        console.say()
        output.show(comparison, sweep.folder)
        content["comparison"] = verdict.as_json(comparison)
        content["page"] = verdict.markdown(comparison)
    spent = planning.total_cost([each.proposal for each in sweep.trials if each.proposal]).spent
    content["dollars"] = spent
    console.say(f"time spent in all trials: {duration(seconds)}{_saved(found.values())}")
    if spent != 0:  # 0.0 is free, None is not known
        console.say(f"money spent, by the table of prices: {'not known' if spent is None else f'about ${spent:,.2f}'}")
    # In addition to MLflow's copy, so that a sweep without tracking has it, too.
    write_json(sweep.folder / layout.SUMMARY, content)
    return content


def _saved(results: "Iterable[Result]") -> str:
    """Say what the later trials have saved, as the first one had made ready what they share."""
    made_ready = [result.seconds["prepare"] for result in results if "prepare" in result.seconds]
    # The longest is the one that found nothing ready; an estimate, as trials differ.
    first = max(made_ready, default=0.0)
    saved = sum(first - each for each in made_ready)
    if saved < 1:
        return ""
    others = "the other one" if len(made_ready) == 2 else f"the {len(made_ready) - 1} others"
    return f"; making ready took {duration(first)} once, which saved {duration(saved)} in {others}"


def _failure(name: str, result: "Result | None", code: int) -> dict[str, str]:
    if result is None:
        stopped = code == StopAsked.exit_code
        message = "stopped before its turn" if stopped else "see above for the reason"
        return {"name": name, "status": "not begun", "message": message}
    return {"name": name, "status": result.status, "message": result.message}


def _raise_for(codes: Mapping[str, int]) -> None:
    bad = [called for called, code in codes.items() if code]
    if not bad:
        return
    # Stopping comes first: trials that it cut off did not fail.
    if StopAsked.exit_code in codes.values():
        raise TrialsError("stopped; give the same command again to continue the sweep", StopAsked.exit_code)
    raise TrialsError(
        f"{len(bad)} of {len(codes)} trials failed; give the same command again to try them once more",
        max(codes.values()),
    )
