"""What tests of graders share: a grader from the service's JSON, and an answer to grade."""

from runner.graders import Grade, Grader, Json, Sample, Subject, make

ANSWER = "{{ sample.output_text }}"


def grader(kind: str, **fields: Json) -> Grader:
    """Return the grader of a type."""
    return make({"type": kind, **fields}, "evaluation.graders[0]")


def subject(text: str, question: str = "", ended: bool = True, **item: Json) -> Subject:
    """Return an answer to a question, with other fields of its row."""
    return Subject({"messages": [{"role": "user", "content": question}], **item}, Sample(text, ended))


def score(made: Grader, text: str, **item: Json) -> float | None:
    """Return the score of an answer."""
    return graded(made, text, **item).score


def graded(made: Grader, text: str, **item: Json) -> Grade:
    """Return the grade of an answer."""
    return made.grade(Subject(item, Sample(text)))
