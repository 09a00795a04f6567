"""The engine that really trains: a job becomes a process `python -m runner backend=local …`, one at a time.

A hosted base model stands for a small one on this machine; the loss is the one that a hosted job minimises, the
states follow the process, the metrics are those of its journal under the hosted service's names, and a deployment of
the tuned model answers with it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from runner.hosted import methods as wire_forms
from runner.record.events import Metrics
from runner.record.journal import read
from tests.emulator.course import TERMINAL, Course, Measure, Stage
from tests.emulator.records import File, Job
from tests.emulator.rows import with_images

ROOT = Path(__file__).parents[2]
METHODS = {"supervised": "sft", "dpo": "dpo", "reinforcement": "rft"}
# The hosted service's columns; what is not here it does not report.
COLUMNS = {
    "loss": "loss",
    "token_accuracy": "mean_token_accuracy",
    "reward_accuracy": "accuracy",
    "reward_margin": "reward_margin",
    "reward_chosen": "reward_chosen",
    "reward_rejected": "reward_rejected",
}
SPLITS = {"train": "train", "eval": "full_valid"}
"""`valid` would be one batch of the held-out rows; a local run measures all of them, which is `full_valid`."""
STOP_SECONDS = 10


class Run:
    """One job's process, in a folder of its own."""

    popen = subprocess.Popen

    def __init__(self, job: Job, folder: Path, model: list[str], more: tuple[str, ...] = ()) -> None:
        self.job = job
        self.folder = folder
        self.stages = [Stage(job.created_at, "validating_files"), Stage(time.time(), "queued")]
        self._model, self._more = model, more
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    @property
    def waiting(self) -> bool:
        """Whether the process has still to be started."""
        return self.stages[-1].status == "queued"

    @property
    def running(self) -> bool:
        """Whether the process is at work."""
        return self.stages[-1].status == "running"

    def start(self) -> None:
        """Start the process."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "500", "NO_COLOR": "1"}
        with (self.folder / "output.txt").open("wb") as output:
            self._process = self.popen(
                self._command(),
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the emulator, which ends its processes itself
            )
        self.stages.append(Stage(time.time(), "running"))

    def look(self) -> None:
        """Note it where the process has ended."""
        if not self.running or self._process is None or self._process.poll() is None:
            return
        if self._process.returncode == 0:
            self.stages.append(Stage(time.time(), "succeeded"))
        else:
            said = (self.folder / "output.txt").read_text("utf-8", "replace").strip().splitlines() or ["nothing"]
            error = {"code": "training_failed", "message": said[-1].strip(), "param": None}
            self.stages.append(Stage(time.time(), "failed", error))

    def stop(self) -> None:
        """End the process: asked first, then made to."""
        if self.stages[-1].status in TERMINAL:
            return
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self.stages.append(Stage(time.time(), "cancelled"))

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def result(self) -> Path | None:
        """Return the folder of the run that the process made, None where there is none yet."""
        return next((path.parent for path in self.folder.glob("runs/*/journal.jsonl")), None)

    def measures(self) -> Iterator[Measure]:
        """Yield what was measured, each time under the hosted service's names."""
        folder = self.result()
        for record in read(folder / "journal.jsonl") if folder is not None else []:
            match record.event:
                case Metrics(at, values) if at > 0 and (row := hosted(values)):
                    yield Measure(record.time, {"step": at, **row})

    def _command(self) -> list[str]:
        job, method = self.job, METHODS[self.job.method]
        words = [f"method={method}", *self._model, f"seed={job.seed}"]
        words += ["dataset=files", f"dataset.train={self._put(job.training)}"]
        if job.validation is not None:
            words.append(f"dataset.validation={self._put(job.validation)}")
        asked = {key: value for key, value in job.hyperparameters.items() if value != "auto"}
        words += [f"{method}.{key}={value}" for key, value in {**wire_forms.load(method).fixed, **asked}.items()]
        if "grader" in job.settings:
            path = self.folder / "grader.json"
            path.write_text(json.dumps(job.settings["grader"]), "utf-8")
            words.append(f"{method}.grader={path}")
        quiet = ["evaluation.samples=0", "tracking=none"]
        return [sys.executable, "-m", "runner", "backend=local", *words, *quiet, *self._more]

    def _put(self, file: File) -> Path:
        path = self.folder / f"{file.id}.jsonl"
        # The small model that stands for all of them sees nothing: it learns from the texts.
        rows = [json.loads(line) for line in file.content.decode("utf-8-sig").split("\n") if line.strip()]
        content = "".join(json.dumps(_text_alone(row)) + "\n" for row in rows)
        path.write_bytes(content.encode() if with_images(file.content) else file.content)
        return path


def _text_alone(value: Any) -> Any:
    """Return a row with a word for each image among the parts of its contents."""
    if isinstance(value, dict) and "image_url" in value:
        return {"type": "text", "text": "[image]"}
    if isinstance(value, dict):
        return {key: _text_alone(each) for key, each in value.items()}
    return [_text_alone(each) for each in value] if isinstance(value, list) else value


class LocalTraining:
    """Trains each job in turn on this machine; `source` is the model that every hosted base model stands for.

    `more` are keys by method that no hosted job has, such as the length of the answers that are sampled.
    """

    pauses = False
    more: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, folder: Path, source: str | None = None) -> None:
        self._folder = folder
        self._source = source
        self._runs: dict[str, Run] = {}
        self._answerers: dict[Path, Any] = {}

    def __enter__(self) -> "LocalTraining":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # Not asked first, as a job that is cancelled: while it imports torch and reads the model, a process takes 7 s
        # to stop, and nobody can resume what is in a folder that goes as well.
        for run in self._runs.values():
            run.kill()

    def start(self, job: Job, now: float) -> None:
        """Queue a job; it begins when those before it have ended."""
        if job.method not in METHODS:
            message = f"This machine trains by {', '.join(METHODS)} only."
            job.rejection = {"code": "not_supported", "message": message, "param": "method"}
            return
        more = self.more.get(METHODS[job.method], ())
        self._runs[job.id] = Run(job, self._folder / job.id, self._model(job), more)
        self._continue()

    def stop(self, job: Job) -> None:
        """End a job's process, or take the job out of the queue."""
        if job.id in self._runs:
            self._runs[job.id].stop()

    def course(self, job: Job) -> Course:
        """Return what is known of a job, and start the next one where this one has ended."""
        self._continue()
        run = self._runs.get(job.id)
        if run is None:
            return Course((Stage(job.created_at, "validating_files"), Stage(job.created_at, "failed", job.rejection)))
        return Course(tuple(run.stages), tuple(run.measures()))

    def epochs(self, job: Job) -> int:
        """Return the passes that the run's plan has; 1 as long as there is none."""
        folder = self._runs[job.id].result() if job.id in self._runs else None
        if folder is None:
            return 1
        return int(json.loads((folder / "plan.json").read_bytes())["hyperparameters"]["n_epochs"])

    def answer(self, model: str, messages: list[dict[str, Any]]) -> str:
        """Return the tuned model's answer where a job made it, the base model's otherwise."""
        from runner.data.rows import Message
        from runner.pyfunc import Answerer

        folder = self._weights(model)
        if folder not in self._answerers:
            self._answerers.clear()  # one model in memory is enough
            self._answerers[folder] = Answerer(folder)
        prompt = tuple(Message(role=message["role"], content=message["content"]) for message in messages)
        return str(self._answerers[folder].answer(prompt))

    def _continue(self) -> None:
        for run in self._runs.values():
            run.look()
        if not any(run.running for run in self._runs.values()):
            waiting = next((run for run in self._runs.values() if run.waiting), None)
            if waiting is not None:
                waiting.start()

    def _model(self, job: Job) -> list[str]:
        made = self._maker(job.model)
        if made is not None:
            return [f"model.source=run:{made.result()}"]
        return ["model=smollm2"] if self._source is None else [f"model.source={self._source}"]

    def _maker(self, model: str) -> Run | None:
        """Return the run that made a model; a checkpoint stands for its job's last state, as no other is kept."""
        name = model.partition(":ckpt-step-")[0]
        return next((run for run in self._runs.values() if run.job.fine_tuned_model == name), None)

    def _weights(self, model: str) -> Path:
        from runner import models

        made = self._maker(model)
        found = made.result() if made is not None else None
        return found / "model" if found is not None else models.fetch(self._source or default_source())


def default_source() -> str:
    """Return the model that the runner takes where nothing else is asked for."""
    from omegaconf import OmegaConf

    from runner.request import hydra_config

    return str(OmegaConf.load(hydra_config.home() / "conf" / "model" / "smollm2.yaml").source)


def hosted(values: dict[str, float]) -> dict[str, Any]:
    """Return metrics under the hosted service's names, without those that it does not report."""
    names = {f"{ours}/{name}": f"{theirs}_{column}" for name, column in COLUMNS.items()
             for ours, theirs in SPLITS.items()}  # fmt: skip
    return {names[name]: value for name, value in values.items() if name in names} | _rewards(values)


def _rewards(values: dict[str, float]) -> dict[str, Any]:
    """Return what a reinforcement job reports of a step: nested, with a part for each grader of a multi."""
    row: dict[str, Any] = {}
    graders: dict[str, dict[str, Any]] = {}
    for split, prefix, mean in (("train", "", "train_mean_reward"), ("eval", "valid_", "full_valid_mean_reward")):
        if f"{split}/reward" not in values:
            continue
        row[mean] = values[f"{split}/reward"]
        row[f"{prefix}completion_tokens_mean"] = values[f"{split}/answer_tokens"]
        scores = row.setdefault("scores", {"graders": []})
        scores[f"{prefix or 'train_'}reward_mean"] = values[f"{split}/reward"]
        for name, value in values.items():
            if name.startswith(f"{split}/reward_"):
                part = graders.setdefault(name.partition("_")[2], {"name": name.partition("_")[2]})
                part[f"{prefix or 'train_'}reward_mean"] = value
        scores["graders"] = list(graders.values())
    return row
