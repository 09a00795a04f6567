"""`python -m runner.data.checking.worker`: a process that checks pieces of files until its input ends.

A pickled pair (`Job`, `Met`) comes in, a pickled `Checked` or `DataError` goes out. Any other error ends the process,
and the parent does the job itself, where the error shows as it always does.
"""

import os
import pickle
import sys

from runner.data.checking.job import check
from runner.data.checking.parts import no_garbage_collection
from runner.errors import DataError


def main() -> None:
    """Answer until there is nothing more to read: the parent has closed the pipe, or is gone."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a library may print must not get between the replies.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with no_garbage_collection():
        while True:
            try:
                job, met = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                reply: object = check(job, met)
            except DataError as error:
                reply = error
            # The fifth protocol copies large bytes once.
            pickle.dump(reply, replies, pickle.HIGHEST_PROTOCOL)
            replies.flush()


if __name__ == "__main__":
    main()
