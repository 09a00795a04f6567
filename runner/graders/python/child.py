"""The process in which a grader's source runs: a request per line of JSON, each answered with a score or an error.

Started as `python -I`, it knows nothing of the project. What the source prints goes nowhere: the pipes to the parent
are moved to other numbers before the source runs. Source: https://platform.openai.com/docs/guides/graders
"""

import json
import math
import numbers
import os
import signal
import sys
import traceback
from types import CodeType, ModuleType

sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120
from confinement import confine  # type: ignore[import-not-found]  # by its own name: no project here

del sys.path[0]

FILE = "<grader>"
LONGEST = 300
"""Characters of an error's text."""


def main() -> None:
    """Answer requests until there are no more."""
    # What the source prints, or a library of its, must not be taken for a reply.
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    setup = json.loads(requests.readline())
    try:
        confine(setup["memory"])
        code = compile(setup["source"], FILE, "exec")
    except BaseException as error:
        replies.write(_line({"id": 0, "error": _message(error)}))
        return
    replies.write(_line({"id": 0}))
    for line in requests:
        # Ends an endless loop should the parent, whose deadline is earlier, be gone.
        signal.setitimer(signal.ITIMER_REAL, setup["timeout"] + 5)
        request = json.loads(line)
        replies.write(_line({"id": request["id"], **_graded(code, request)}))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _graded(code: CodeType, request: dict[str, object]) -> dict[str, object]:
    """Run the source afresh, as the service does, so that no grade depends on an earlier one; 10 µs for a short one."""
    module = ModuleType("grader")
    sys.modules["grader"] = module
    try:
        # Confined by now, as far as the system can (confinement.py).
        exec(code, module.__dict__)
        value = module.grade(request["sample"], request["item"])
        # A bool is an int to Python; who returns one has most likely forgotten to weigh it.
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return {"error": f"returned {'None' if value is None else f'a {type(value).__name__}'}, not a number"}
        score = float(value)
    except BaseException as error:
        return {"error": _message(error)}
    return {"score": score} if math.isfinite(score) else {"error": f"returned {score}, not a finite number"}


def _message(error: BaseException) -> str:
    """Return the last line of the traceback, and the line of the source it comes from."""
    lines = [number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == FILE]
    name = type(error).__name__
    try:
        text = " ".join(str(error)[:LONGEST].split())
    except BaseException:
        text = ""
    return (f"line {lines[-1]}: " if lines else "") + (f"{name}: {text}" if text else name)


def _line(reply: dict[str, object]) -> bytes:
    return json.dumps(reply).encode() + b"\n"


if __name__ == "__main__":
    main()
