"""Every key of a request with its default, meaning and range.

A key is an annotated field; its docstring is its line in `docs/keys.md`. The keys under `dpo`, `sft` and `backend`
are defined next to their owners (`runner/methods/`, `runner/backends/`).
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Self

from runner.data.json_value import Json
from runner.judging.keys import JudgeKeys
from runner.request.types import Auto, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, Share


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Keys under `dataset`."""

    train: str | list[str] = "???"
    """File, glob or list of them: JSONL, JSON array, CSV or Parquet; also `hf:ORG/NAME`, `https:…` and others."""
    # Free-form: runner/data/mixture.py checks it, with the place in the message.
    mix: dict[str, Json] | None = None
    """In place of `train`, sources by name, each `{source: FILES, weight: SHARE, max_rows: CAP}`."""
    validation: str | list[str] | None = None
    """Held-out rows, likewise."""
    format: str = "auto"
    """Shape of the rows; auto recognises it from the first ones."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """Refuse data with rows that cannot be trained on, or leave those out."""
    validation_fraction: Fraction = 0.0
    """Without `validation`: the share of the training rows to hold out."""
    split_seed: NonNegativeInt = 0
    """Which rows are held out, and which a mixture takes; a row stays where it is when others are added."""
    max_rows: PositiveInt | None = None
    """Use only the first so many rows of each split."""
    style: str | None = None
    """A regular expression that a whole answer in the style taught here matches; sampled answers are counted by it."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Keys under `model`."""

    source: str = "???"
    """`pypi:…`, `hf:ORG/NAME@REVISION`, `path:FOLDER`, `run:RUN`, `models:/NAME@ALIAS`, or `template:FILE+SOURCE`."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Keys under `evaluation`."""

    every: PositiveInt | Auto = "auto"
    """Optimizer steps between evaluations on the held-out rows; auto: at the start, half-way, at the end."""
    keep: Literal["best", "last"] = "last"
    """Which checkpoint becomes the result: the last, or the one with the lowest held-out loss."""
    keep_by: str | None = None
    """What `keep=best` and `patience` go by: null the held-out loss, else a grader's name, by its mean; local only."""
    patience: PositiveInt | None = None
    """Stop training when the held-out loss (or `keep_by`) has not improved in so many evaluations; local only."""
    max_rows: PositiveInt | None = None
    """Use only the first so many held-out rows, and rows of each benchmark."""
    prompts: str | list[str] | None = None
    """File, glob or list of them with the prompts to answer, and fields for graders; null takes held-out rows."""
    samples: NonNegativeInt | Auto = "auto"
    """Prompts answered by the base and the tuned model; auto: all of `prompts`, 32 held-out ones if graded, else 10."""
    samples_per_prompt: PositiveInt = 1
    """Answers to each prompt."""
    max_new_tokens: PositiveInt = 128
    """Tokens an answer may take."""
    temperature: NonNegativeFloat = 0.0
    """Of the answers; 0 takes the likeliest token each time, so that several answers to a prompt are the same."""
    top_p: Share = 1.0
    """Only the likeliest tokens that together have this probability are sampled from."""
    # Free-form: a grader's own type checks its fields, with the place in the message (evaluation/configured.py).
    graders: list[str | dict[str, Json]] = field(default_factory=list)
    """What grades answers: names of `conf/grader/NAME.yaml`, or graders as the service's JSON."""
    judge: JudgeKeys = field(default_factory=JudgeKeys)


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Keys under `tracking`."""

    enabled: bool = True
    """Log to MLflow; the group `tracking=none` sets it to false."""
    uri: str | None = None
    """Where; null takes MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder."""
    experiment: str = "runner"
    """The MLflow experiment."""
    register: str | None = None
    """Also register the resulting model under this name (`models:/NAME`)."""


@dataclass(frozen=True, kw_only=True)
class RootKeys:
    """Keys at the top."""

    name: str = "auto"
    """What the run is called; auto takes method and data set, with `hosted-` before it for a hosted job."""
    mode: Literal["run", "plan"] = "run"
    """`plan` checks the data and prints the plan; nothing is created, sent or trained."""
    show: NonNegativeInt = 0
    """Print so many training rows as the model sees them, with the plan: what is learned in colour or brackets."""
    again: bool = False
    """Run a plan once more that is finished, or whose hosted job failed; an unfinished one resumes."""
    seed: NonNegativeInt = 42
    """Order of the rows, initial adapter, dropout."""
    runs_folder: str = "runs"
    """Folder of the run folders."""
    max_price: NonNegativeFloat | None = None
    """Dollars; a hosted run or sweep that costs more by the table of prices, or has no price, starts if agreed to."""
    sweep: str | None = None
    """The sweep that a trial belongs to; `-m` sets it by itself."""
    rehearse: bool = False
    """Before the start, let the base model answer some prompts several times: pass rate and spread by each grader."""
    harness: list[str] = field(default_factory=list)
    """Benchmarks that `runner.evaluate` runs: tasks of lm-evaluation-harness, own ones as a YAML file or its folder."""
    search: str | None = None
    """The search that proposed a trial, `FILE#NUMBER`; `hydra/sweeper=optuna` sets it by itself."""


@dataclass(frozen=True, kw_only=True)
class BackendKeys:
    """Keys under `backend` of every backend."""

    name: str
    """The backend."""

    @classmethod
    def of(cls, request: "Request") -> Self:
        """Return the settings of a request for this backend."""
        assert isinstance(request.backend, cls)
        return request.backend


@dataclass(frozen=True, kw_only=True)
class Request(RootKeys):
    """What a user asked for, checked: types and ranges hold, `auto` may still be there."""

    dataset: Dataset
    model: Model
    evaluation: Evaluation
    tracking: Tracking
    method: str
    hyperparameters: Any
    backend: BackendKeys


SECTIONS: dict[str, type] = {"dataset": Dataset, "model": Model, "evaluation": Evaluation, "tracking": Tracking}
