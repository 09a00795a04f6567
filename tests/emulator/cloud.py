"""The service's state and its knobs: everything that the operations read and change, nothing of HTTP."""

import threading
from collections.abc import Callable
from typing import Any

from tests.emulator import places
from tests.emulator.clock import Clock
from tests.emulator.course import Course, disturbed
from tests.emulator.faults import Faults
from tests.emulator.identity import Tokens
from tests.emulator.judge import Judge
from tests.emulator.messages import Request
from tests.emulator.records import Deployment, File, Job, Script, Signal
from tests.emulator.script import Engine, Scripted

STYLES = ("strict", "lax")


class Cloud:
    """The service: what it holds, how it answers (`strict` as OpenAI does, `lax` as Azure does), what tests can set."""

    def __init__(
        self, style: str = "strict", speed: float = 1.0, clock_offset: float = 0.0, engine: Engine | None = None
    ) -> None:
        if style not in STYLES:
            raise ValueError(f"style: got {style!r}; allowed: {', '.join(STYLES)}.")
        self.style = style
        self.clock = Clock(speed, clock_offset)
        self.engine = engine or Scripted()
        self.lock = threading.RLock()
        self.files: dict[str, File] = {}
        self.jobs: dict[str, Job] = {}
        self.deployments: dict[str, Deployment] = {}
        self.copies: dict[str, dict[str, Any]] = {}
        # Everything that was ever made by a request, also what has been deleted; results files are not among them.
        self.created_files: list[File] = []
        self.created_jobs: list[Job] = []
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.operations: dict[str, Deployment] = {}
        self.identity = Tokens()
        self.faults = Faults()
        # Knobs, to be set at any time.
        self.script = Script()
        self.limits = places.Limits()
        self.answer: Callable[[str, list[dict[str, Any]]], str] | None = None
        self.calls = False
        """Whether a model that is offered tools calls the first of them."""
        self.judge = Judge()
        # What the service makes of a grader's score, in `graders/run`.
        self.regrade: Callable[[float], float] = lambda score: score
        self.echo_metadata = True
        self.token_seconds = 3600.0
        self.file_seconds = 0.2
        self.deployment_seconds = 0.3
        self.deployment_lag_seconds = 0.0

    @property
    def lax(self) -> bool:
        """Whether answers have Azure's shape."""
        return self.style == "lax"

    @property
    def tokens(self) -> set[str]:
        """All bearer tokens that were ever issued."""
        return set(self.identity.issued)

    def expire_tokens(self) -> None:
        """Make all tokens issued so far invalid, whatever the clients believe."""
        self.identity.revoke()

    def advance(self, seconds: float) -> None:
        """Move the service's clock forward."""
        self.clock.advance(seconds)

    def course(self, job: Job) -> Course:
        """Return a job's course with all that was done to it from outside."""
        with self.lock:
            self._begin_waiting()
            return self._course(job)

    def _course(self, job: Job) -> Course:
        return disturbed(self.engine.course(job), job.signals)

    def _begin_waiting(self) -> None:
        """Let jobs that wait begin, as far as there are places to run."""
        while any(job.began is None and job.rejection is None for job in self.jobs.values()):
            courses = [(job, self._course(job)) for job in self.jobs.values() if job.rejection is None]
            if places.begin(self.limits, courses, self.clock.now()) is None:
                return

    def cancel_from_portal(self, job_id: str) -> None:
        """Cancel a job as a colleague does in the portal."""
        self.signal(self.jobs[job_id], "cancelled")

    def fail(self, job_id: str, error: dict[str, Any] | None) -> None:
        """Let a job fail now, with the error that it is to show (None and {} are seen in the wild)."""
        self.signal(self.jobs[job_id], "failed", error)

    def signal(self, job: Job, kind: str, error: dict[str, Any] | None = None) -> None:
        """Do something to a job from outside, now."""
        with self.lock:
            job.signals.append(Signal(self.clock.now(), kind, error))
        if kind in ("cancelled", "failed"):
            self.engine.stop(job)

    def add_deployment(self, name: str, model: str) -> None:
        """Put up a deployment that has been there for long."""
        described = {"format": "OpenAI", "name": model, "version": "1"}
        long_ago = self.clock.now() - 86400
        self.deployments[name] = Deployment(
            name, described, {"name": "GlobalStandard", "capacity": 1}, long_ago, long_ago, long_ago
        )
