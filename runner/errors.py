"""Every error a user can meet, in one place.

    RunnerError            1   the run failed
    ├── RequestError       2   the request (YAML, command line) asks for something that cannot be
    ├── DataError          2   the data cannot be trained on
    ├── ModelError         2   a model cannot be found, fetched or loaded
    ├── AccessError        2   a hosted service does not let us in: endpoint, credential or role
    ├── BusyError          1   another live process works on the same plan
    ├── ServiceError       1   a hosted service fails or cannot be reached; the same command continues
    │   └── FullError      1   it keeps or runs no more of something until another is gone
    ├── JudgeError         1   a judge's answer cannot be had; the row has no grade from it
    ├── RefusedError       1   a model is not promoted: the evidence does not suffice
    ├── ProofError         1   an export is not the model that the run has made
    ├── LostError          1   another of several processes is gone; the same command continues
    ├── EndedError         1   a hosted job ended without a model; only a new one (again=true) can continue
    └── StopAsked        130   the process was asked to stop, and did so at a safe point
        ├── LeftRunning  130   it did, and a hosted job continues without it
        └── Pruned         0   a search gave the trial up, as it fell behind the others

The number is the process's exit code. A message is one sentence: place, what was found, what is
allowed, and the fix. `python -m runner` prints it without a traceback.
"""


class RunnerError(Exception):
    """The run failed for a reason that the message explains."""

    exit_code = 1


class RequestError(RunnerError):
    """The request asks for something that cannot be; nothing has been loaded or created yet."""

    exit_code = 2


class DataError(RunnerError):
    """The data cannot be read, or holds rows that cannot be trained on."""

    exit_code = 2


class ModelError(RunnerError):
    """A model source names something that cannot be found, fetched or loaded."""

    exit_code = 2


class BusyError(RunnerError):
    """Another live process works on the same plan."""


class AccessError(RunnerError):
    """A hosted service does not let us in: endpoint, credential, role or a variable that is not set."""

    exit_code = 2


class ServiceError(RunnerError):
    """A hosted service fails or cannot be reached; what was created there exists, and the same command resumes."""


class FullError(ServiceError):
    """A hosted service takes no more of something, jobs or files, until another is done or removed."""


class JudgeError(RunnerError):
    """A judge's answer cannot be had: refused, cut off, malformed, or the service gave up."""


class RefusedError(RunnerError):
    """A model is not promoted, as it is not better for sure than what has the alias; nothing was moved."""


class ProofError(RunnerError):
    """An export does not say what the run's model says, or the program made for it cannot load it."""


class LostError(RunnerError):
    """Another of the processes that work on the plan together is gone; what is on disk is kept."""


class EndedError(RunnerError):
    """A hosted job failed or was cancelled: the plan can only be carried out by a new job."""


STOPPED = "stopped on request"


# An exception and not a flag: thrown into a generator at its yield, it stops a step at a place that the step knows.
class StopAsked(RunnerError):
    """The process was asked to stop; thrown into the running step, which saves what it has."""

    exit_code = 130


class LeftRunning(StopAsked):
    """The process was asked to stop while it followed a hosted job, which continues."""


class Pruned(StopAsked):
    """A search gave the trial up, as it fell behind the others: no failure."""

    exit_code = 0
