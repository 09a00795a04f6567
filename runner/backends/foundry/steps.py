"""The hosted backend's steps. Each leaves what it made at the service by name, and can be taken up again anywhere.

try_grader the grader checked there, if asked
upload     the rows as files, once a content                    → file ids
create     the job, once per plan                               → job id
follow     the job to its end: states, messages, metrics        → the model's name
results    the results file and the checkpoints
save       what the model is                                    model/hosted.json
deploy, sample, undeploy                                        deployed_steps.py
"""

import re
from typing import TYPE_CHECKING, TypedDict

import msgspec
from openai import NotFoundError

from runner import models
from runner.backends import Events, Result
from runner.backends.foundry.catalogue import WIRE, TrainingType
from runner.backends.foundry.connect import service
from runner.backends.foundry.keys import Foundry
from runner.errors import LeftRunning, RequestError, StopAsked
from runner.hosted import files, follow, jobs, metrics, rewards
from runner.hosted import methods as wire_forms
from runner.hosted.connection import Asking, PageOptions
from runner.hosted.rewards import grader_trial
from runner.models import hosted_model
from runner.models.hosted_model import HostedModel
from runner.record import layout
from runner.record.events import Metrics, Note, State

if TYPE_CHECKING:
    from typing import Unpack

    from openai.pagination import SyncCursorPage
    from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

    from runner.plan import Plan, Run
    from runner.record.journal import RunState

# The second is what the service said of a value that it does not know, as if nothing had been sent.
REFUSED_TYPE = re.compile(r"training ?type|fineTuningJob field is required", re.IGNORECASE)
"""What a refusal says where the reason is the training type."""


class Followed(TypedDict):
    """A job that has ended well: its model's name, its results files, and when and after which step it ended."""

    model: str
    trained_tokens: int | None
    result_files: list[str]
    finished_at: float
    step: int


class FoundrySteps:
    """A run's work at the service.

    Raises `AccessError` at once for a variable that any of its steps will need, so that nothing is uploaded before.
    """

    def __init__(self, run: "Run", state: "RunState") -> None:
        self.run, self.state, self.done = run, state, state.results
        self.settings, self.base = Foundry.of(run.request), models.hosted_name(run.plan.model.source) or ""
        self.service = service(self.settings)
        self.by_hour = wire_forms.load(run.plan.method).paid_by_hour
        if self.settings.deploy != "none":
            _ = self.service.control_plane  # raises for a missing variable

    def try_grader(self) -> Events:
        """Have the service check the grader, before anything is uploaded."""
        grader = rewards.grader_of(self.run.request)
        return (yield from grader_trial.tried(self.service, grader, self.run.rows("validation")))

    def upload(self) -> Events:
        """Bring each split to the service, unless it is there.

        All splits are written, which reads them to the end, before anything is sent: rows that are not the plan's
        raise `DataError` there.
        """
        found: Result = {"endpoint": self.service.endpoint}
        paths = {split: self.run.folder / layout.ROWS[split] for split in self.run.plan.splits}
        try:
            contents = {split: files.write(self.run.rows(split), path) for split, path in paths.items()}
            for split, content in contents.items():
                intended = f"file {content.name}" in self.state.intents
                found[split] = yield from files.ensure(self.service, content, intended)
        finally:
            # As large as the data, and made again from the plan's rows when it is needed.
            for path in paths.values():
                path.unlink(missing_ok=True)
        return found

    def create(self) -> Events:
        """Find the plan's job, or create it."""
        plan, uploaded = self.run.plan, self.done["upload"]
        # Files can be removed at the service between two commands; the job would be refused for them.
        if not (yield from files.exist(self.service, _file_ids(plan, uploaded))):
            yield Note("the files that were uploaded are gone from the service: they are uploaded again")
            uploaded = yield from self.upload()
        ids = _file_ids(plan, uploaded)
        # How the job is found again where the service shows no metadata (hosted/jobs.py).
        suffix = self.settings.suffix or jobs.default_suffix(plan.id)
        extra = {"trainingType": WIRE[self.settings.training_type]}
        arguments = jobs.arguments(plan, self.base, ids, suffix, extra, rewards.method_extras(self.run))
        maker = jobs.JobMaker(self.service, plan, arguments, self.run.request.again)
        created = next((name for what, name in self.state.created if what == "job"), None)
        try:
            return {"job": (yield from maker.ensure(self.state.intents.get("job"), created))}
        except RequestError as error:
            if REFUSED_TYPE.search(str(error)):
                raise _refused_type(self.settings.training_type, self.base, error) from error
            raise

    def look(self) -> Events:
        """See what has become of the job so far, without staying."""
        job = yield from self.service.ask(
            f"looking at {self.job_id}", lambda: self.service.openai.fine_tuning.jobs.retrieve(self.job_id)
        )
        yield State("job", str(job.status))
        if job.status in jobs.FAILED:
            follow.ended(job, self.by_hour)
        return {}

    def follow(self) -> Events:
        """Stay with the job until it has ended. Stopping here stops nothing at the service."""
        followed = follow.Followed(self.service, self.job_id, self.run.plan.method)
        try:
            job = yield from followed.to_end()
        except (StopAsked, KeyboardInterrupt) as stop:
            raise LeftRunning(
                f"{self.job_id} continues at the service; come back with the same command or python -m runner.watch "
                f"{self.run.handle}, or end it with python -m runner.jobs cancel {self.job_id}"
            ) from stop
        follow.ended(job, self.by_hour)
        evaluation = (job.model_extra or {}).get("eval_id")
        if evaluation:
            yield Note(f"the service keeps its own evaluation of each step as {evaluation}")
        return {
            "model": job.fine_tuned_model,
            "trained_tokens": job.trained_tokens,
            "result_files": list(job.result_files or ()),
            "finished_at": job.finished_at or job.created_at,
            "step": followed.step,
            **({"evaluation": evaluation} if evaluation else {}),
        }

    def results(self) -> Events:
        """Read the results file into metrics, and list the checkpoints."""
        ended = self._ended()
        last = ended["step"]
        for name in ended["result_files"]:
            content = yield from self._content(name)
            for row in metrics.rows(content):
                step = metrics.step_of(row)
                if step is not None:
                    last = max(last, step)
                    yield Metrics(step, metrics.metrics(row, self.run.plan.method), ended["finished_at"])
        if not last:
            yield Note("the service sent no numbers: neither events nor a results file with any")
        # Each checkpoint is a model that can be deployed or trained on.
        found = yield from self.service.collect("listing checkpoints", self._checkpoints)
        return {"step": last, "checkpoints": list(follow.checkpoints(found))}

    def save(self) -> Events:
        """Leave in the run's folder what the model is."""
        ended = self._ended()
        model = HostedModel(self.run.plan.id, self.base, ended["model"], self.job_id, self.service.endpoint)
        hosted_model.write(self.run.folder, model)
        yield Note(f"the model is {model.model}")
        return {
            "model": f"hosted:{model.model}",
            "external": True,
            "job": model.job,
            "trained_tokens": ended["trained_tokens"],
            "checkpoints": self.done["results"]["checkpoints"],
        }

    def _ended(self) -> Followed:
        return msgspec.convert(self.done["follow"], Followed)

    @property
    def job_id(self) -> str:
        """The job's id at the service."""
        return str(self.done["create"]["job"])

    def _checkpoints(self, **page: "Unpack[PageOptions]") -> "SyncCursorPage[FineTuningJobCheckpoint]":
        return self.service.openai.fine_tuning.jobs.checkpoints.list(self.job_id, **page)

    def _content(self, name: str) -> Asking[bytes]:
        """Return a results file's bytes; one that is not there is noted and taken to be empty."""

        def download() -> bytes:
            try:
                return self.service.openai.files.content(name).content
            # No reason to fail a job that has succeeded and is paid for.
            except NotFoundError:
                return b""

        content = yield from self.service.ask(f"fetching the results file {name}", download)
        if not content.strip():
            yield Note(f"the results file {name} is missing or empty: the metrics are those of the job's events")
        return content


def _file_ids(plan: "Plan", uploaded: Result) -> dict[str, str]:
    return {split: str(uploaded[split]) for split in plan.splits if split in uploaded}


def _refused_type(training_type: TrainingType, base: str, error: RequestError) -> RequestError:
    return RequestError(
        f"backend.training_type: got {training_type}, sent as trainingType={WIRE[training_type]}, which the service "
        f"refuses for {base} in this project's region ({error}); choose another."
    )
