"""Answers graded: each grade is on the disk before the next is asked for, and what is there is not graded again."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import IO, NamedTuple

import msgspec

from runner.data.rows import on_the_wire
from runner.evaluation.configured import key_of
from runner.graders import Grade, Grader, Grading, Json, Judge, Sample, Subject
from runner.record import graded
from runner.record.events import Event, Progress
from runner.record.graded import Answer, AnswerGrade, Asked


class Task(NamedTuple):
    """An answer to be graded by a grader, by its place in the list of graders."""

    grader: int
    answer: Answer
    subject: Subject
    key: str


def grade(
    folder: Path,
    rows: Sequence[Asked],
    answers: Sequence[Answer],
    graders: Sequence[Grader],
    judge: Judge | None,
    base: str = "base",
    at_once: int = 1,
) -> Generator[Event, None, list[AnswerGrade]]:
    """Grade answers and return all grades, in order of graders, then of answers; those in the folder are taken as they
    are. A killed process loses the grades that were under way, and no other.

    `base` is the model whose answers a comparing grader takes for the other side. Graders that wait for a network
    grade `at_once` answers at a time: with 1 a killed process has nothing under way when a grade is kept.
    """
    path = folder / graded.GRADES
    tasks = list(_tasks(rows, answers, graders, base))
    known = _known(folder)
    left = [task for task in tasks if task.key not in known]
    yield Progress("grade", len(tasks) - len(left), len(tasks))
    if left:
        with ExitStack() as stack, path.open("ab") as file:
            gradings = {each: stack.enter_context(graders[each].grading(judge)) for each in {t.grader for t in left}}
            for done, (task, grade) in enumerate(_graded(left, graders, gradings, at_once), len(tasks) - len(left) + 1):
                known[task.key] = _record(task, graders[task.grader].name, grade)
                _keep(file, known[task.key])
                yield Progress("grade", done, len(tasks))
    found = [known[task.key] for task in tasks]
    asked = {task.key for task in tasks}
    _set_aside(folder, [each for key, each in known.items() if key not in asked])
    # Only now, as a whole: until here the file was appended to, so that a kill loses nothing that was paid for.
    graded.write(path, found)  # without those of other graders and answers, which are not asked for now
    return found


def forget_errors(folder: Path, graders: Sequence[Grader]) -> None:
    """Remove the errors of graders that wait for a network from a folder, so that `grade` asks them again."""
    # The network's, or a wrong key's; a judge's answer that cannot be read is on the disk and costs nothing again.
    waiting = {each.name for each in graders if each.concurrent}
    for path in (folder / graded.FORMER_GRADES, folder / graded.GRADES):
        found = graded.read_whole(path, AnswerGrade)
        left = [each for each in found if not (each.error and each.grader in waiting)]
        if len(left) < len(found):
            graded.write(path, left)


def _known(folder: Path) -> dict[str, AnswerGrade]:
    """Return the grades that a folder holds by their keys, those that were set aside among them."""
    files = (folder / graded.FORMER_GRADES, folder / graded.GRADES)
    return {each.key: each for path in files for each in graded.read_whole(path, AnswerGrade)}


def _set_aside(folder: Path, former: Sequence[AnswerGrade]) -> None:
    """Keep grades of graders and answers that are not asked for now: they may have been paid for."""
    path = folder / graded.FORMER_GRADES
    kept = {each.key for each in graded.read_whole(path, AnswerGrade)}
    if left := [each for each in former if each.key not in kept]:
        with path.open("ab") as file:
            file.write(msgspec.json.Encoder().encode_lines(left))


@contextmanager
def ahead(
    folder: Path, rows: Sequence[Asked], grader: Grader, judge: Judge | None, at_once: int = 1
) -> Iterator[Callable[[Answer], None]]:
    """Lend what has an answer graded by threads while others are still sampled; `grade` finds the grades in the folder.

    Only by graders that wait for a network or another process: what computes here would take turns with the sampling.
    Grades that are not under way when the block ends are left to `grade`, as are those whose grader raises.
    """
    if grader.loads() or not (grader.concurrent or grader.waits):
        yield lambda answer: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    path, asked, lock = folder / graded.GRADES, {row.row: row for row in rows}, Lock()
    known = _known(folder)
    with grader.grading(judge) as grading, path.open("ab") as file:
        pool = ThreadPoolExecutor(at_once if grader.concurrent else 1)

        def work(task: Task) -> None:
            record = _record(task, grader.name, grading(task.subject))
            with lock:
                _keep(file, record)

        def on_answer(answer: Answer) -> None:
            for task in _tasks([asked[answer.row]], [answer], [grader], base=""):
                if task.key not in known:
                    pool.submit(work, task)

        try:
            yield on_answer
        finally:
            pool.shutdown(cancel_futures=True)


def _keep(file: IO[bytes], record: AnswerGrade) -> None:
    """Append a grade at once: whoever is killed next has not lost it."""
    file.write(msgspec.json.encode(record) + b"\n")
    file.flush()


def _tasks(rows: Sequence[Asked], answers: Sequence[Answer], graders: Sequence[Grader], base: str) -> Iterator[Task]:
    asked = {row.row: row for row in rows}
    others = {(each.row, each.sample): each for each in answers if each.model == base}
    for number, grader in enumerate(graders):
        identity = key_of(grader)
        for answer in answers:
            other = None if answer.model == base else others.get((answer.row, answer.sample))
            if grader.compares and other is None:
                continue  # there is nothing to compare the answer with
            subject = Subject(item_of(asked[answer.row]), sample_of(answer), sample_of(other) if other else None)
            # What decides a grade and nothing else: what is sampled again or has another reference is graded again.
            seen = [identity, answer, subject.item, other if grader.compares else None]
            yield Task(number, answer, subject, sha256(msgspec.json.encode(seen, order="sorted")).hexdigest()[:24])


def item_of(row: Asked) -> dict[str, Json]:
    """Return a row as graders see it: its prompt as `messages`, and each other key."""
    # By JSON: `to_builtins` would keep tuples, and graders look for lists, as a file has them.
    messages = msgspec.json.decode(msgspec.json.encode(on_the_wire(row.prompt)))
    item: dict[str, Json] = {"messages": messages, **row.fields}
    return item | ({"tools": list(row.tools)} if row.tools else {})


def sample_of(answer: Answer) -> Sample:
    """Return an answer as graders see it."""
    return Sample(answer.text, answer.ended, answer.tool_calls)


def _graded(
    tasks: Sequence[Task], graders: Sequence[Grader], gradings: dict[int, Grading], at_once: int
) -> Iterator[tuple[Task, Grade]]:
    """Yield each task with its grade as it comes; those of graders that wait for a network several at a time."""
    for task in tasks:
        if not graders[task.grader].concurrent:
            yield task, gradings[task.grader](task.subject)
    waiting = iter([task for task in tasks if graders[task.grader].concurrent])
    with ThreadPoolExecutor(at_once) as pool:
        running: dict[Future[Grade], Task] = {}
        try:
            while True:
                # No more than are graded at once: a pool that held all would have thousands to cancel at Ctrl-C.
                for task in islice(waiting, at_once - len(running)):
                    running[pool.submit(gradings[task.grader], task.subject)] = task
                if not running:
                    break
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _record(task: Task, grader: str, grade: Grade) -> AnswerGrade:
    answer = task.answer
    return AnswerGrade(
        model=answer.model, row=answer.row, sample=answer.sample, grader=grader, score=grade.score,
        reason=grade.reason, error=grade.error, parts=dict(grade.parts), key=task.key,
    )  # fmt: skip
