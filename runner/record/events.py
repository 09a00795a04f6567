"""What happens during a run, as values: steps yield them; journal, MLflow and terminal receive them.

`Progress` is for the eye and `Wait` for the clock only; the others are kept in the journal and can be replayed from it.
"""

from collections.abc import Mapping

import msgspec

Result = dict[str, object]
"""What a step returns and later ones read, as small JSON. Whoever reads it says of which form it is, and so checks it:
`msgspec.convert(result, FORM)`; the journal may be an earlier version's.
"""


# tag=True writes the class's name into each line of the journal, and field names are its keys: to rename either
# makes the journals of earlier runs unreadable.
class Started(msgspec.Struct, frozen=True, tag=True):
    """A process begins, or takes up again, to work on a plan."""

    host: str
    versions: dict[str, str]


class StepStarted(msgspec.Struct, frozen=True, tag=True):
    """A step begins."""

    step: str


class StepDone(msgspec.Struct, frozen=True, tag=True):
    """A step has ended well; `result` is what later steps and a resumed run read."""

    step: str
    key: str
    seconds: float
    result: Result


class Metrics(msgspec.Struct, frozen=True, tag=True, rename={"step": "at"}):  # "at" in journals
    """Values measured after `step` optimizer steps, by their full names (`train/loss`, `eval/reward_accuracy`).

    `time` is when, in seconds since 1970, where another machine measured them; else it is now.
    """

    step: int
    values: dict[str, float]
    time: float | None = None


class Samples(msgspec.Struct, frozen=True, tag=True):
    """The same prompts answered by the base and by the tuned model."""

    rows: list[dict[str, str]]


class Graded(msgspec.Struct, frozen=True, tag=True, rename={"step": "at"}):
    """Answers of the model after `step` optimizer steps, and their grades, are in this folder of the run."""

    step: int
    folder: str


class Note(msgspec.Struct, frozen=True, tag=True):
    """Something a user should know: a choice made, a fallback taken."""

    text: str


class Intent(msgspec.Struct, frozen=True, tag=True):
    """Something is about to be created where it costs money; `detail` is what a later look needs to find it."""

    what: str
    detail: Mapping[str, object]


class Created(msgspec.Struct, frozen=True, tag=True):
    """Something was created elsewhere (`what`: file, job, deployment), and exists there until it is removed."""

    what: str
    id: str
    detail: Mapping[str, object]


class Removed(msgspec.Struct, frozen=True, tag=True):
    """Something that was created elsewhere is gone; `undoes` is a step that has to be done again if it is wanted."""

    what: str
    id: str
    undoes: str = ""


class Said(msgspec.Struct, frozen=True, tag=True):
    """What a hosted service said of a job, at its own time in seconds since 1970."""

    id: str
    text: str
    time: float


class State(msgspec.Struct, frozen=True, tag=True):
    """What state a hosted thing is in now."""

    what: str
    value: str


class Wait(msgspec.Struct, frozen=True, tag=True):
    """A step has nothing to do for so many seconds: whoever runs it may sleep, or do something else."""

    seconds: float


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far a step is: `done` of `total` (0: not known), and figures or words to show next to it.

    `what` names the phase of the step that is counted, where a step has several ("tokenising", "reference
    log-probabilities"); each phase counts from 0 and has its own rate and time left.
    """

    step: str
    done: int
    total: int
    figures: dict[str, float] = {}
    text: str = ""
    what: str = ""


class Stopped(msgspec.Struct, frozen=True, tag=True):
    """The process was asked to stop and did so at a safe point."""

    reason: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The process ended on an error; `message` is what was printed. `for_good`: resuming cannot fix it."""

    message: str
    for_good: bool = False


Event = (
    Started | StepStarted | StepDone | Metrics | Samples | Graded | Note | Intent | Created | Removed | Said | State
    | Wait | Progress | Stopped | Failed
)  # fmt: skip
