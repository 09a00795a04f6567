"""label_model: a judge gives the answer one of several labels, and some of them pass.

Fields: https://platform.openai.com/docs/api-reference/graders/label-model
"""

from collections.abc import Iterable
from typing import ClassVar

from runner.errors import JudgeError
from runner.graders import Grade, Judge, Subject
from runner.graders.model_grader import ChatGrader, Sampling, Verdict, answer_form, ask, quoted


class Labelled(Verdict, frozen=True, kw_only=True):
    """The judge's answer."""

    result: str


class LabelModel(ChatGrader, frozen=True, kw_only=True):
    """1 where the judge's label is one of `passing_labels`, 0 where it is another one of `labels`.

    Any other label is an error. The reason begins with the label.
    """

    type: ClassVar[str] = "label_model"

    labels: list[str]
    passing_labels: list[str]

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the labels and the messages."""
        yield from super().problems()
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            yield f"labels: got {', '.join(self.labels) or 'none'}; allowed: two or more, each once."
        unknown = [label for label in self.passing_labels if label not in self.labels]
        if unknown or not self.passing_labels:
            got = ", ".join(unknown) or "none"
            yield f"passing_labels: got {got}; allowed: one or more of {', '.join(self.labels)}."

    def warnings(self) -> Iterable[str]:
        """Return that training at the service does not know this type."""
        yield from super().warnings()
        yield "label_model: the service knows it in evaluations only, not in reinforcement fine-tuning."

    def judged(self, subject: Subject, judge: Judge) -> Grade:
        """Ask for the label."""
        form = answer_form("label", {"type": "string", "enum": list(self.labels)})
        found = ask(judge, self.model, self.messages(subject), Sampling(), form, Labelled)
        # Letter by letter, though the form allows no other: not every endpoint keeps to a JSON schema.
        if found.result not in self.labels:
            allowed = ", ".join(self.labels)
            raise JudgeError(f"{self.model}: the judge's label is {quoted(found.result)}; allowed: {allowed}.")
        # The label first, as it is what people look for among many reasons.
        why = f"{found.result}: {found.reason}" if found.reason else found.result
        return Grade(float(found.result in self.passing_labels), why)


GRADER = LabelModel
