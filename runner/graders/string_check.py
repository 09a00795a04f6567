"""1 if two texts are equal, or one holds the other; else 0."""

from collections.abc import Iterable
from typing import ClassVar, Literal

from runner.graders import Grade, Subject, templates
from runner.graders.templates import Templated


class StringCheck(Templated, frozen=True, kw_only=True):
    """Compares `input` with `reference`, both templates, character by character.

    `eq`: equal; `ne`: not equal; `like`: `input` contains `reference`; `ilike`: likewise, ignoring case.
    """

    type: ClassVar[str] = "string_check"
    hosted: ClassVar[bool] = True

    input: str
    reference: str
    operation: Literal["eq", "ne", "like", "ilike"]

    def templates(self) -> Iterable[str]:
        """Return both texts."""
        return (self.input, self.reference)

    def grade(self, subject: Subject) -> Grade:
        """Return 1 or 0, with the comparison as the reason."""
        try:
            text, reference = (templates.render(each, subject) for each in self.templates())
        except templates.MissingValueError as error:
            return Grade(None, error=str(error))
        if self.operation == "eq":
            holds, fails = text == reference, "is not"
        elif self.operation == "ne":
            holds, fails = text != reference, "is"
        elif self.operation == "like":
            holds, fails = reference in text, "does not contain"
        else:
            # casefold, not lower: "STRASSE" and "straße" are the same word.
            holds, fails = reference.casefold() in text.casefold(), "does not contain"
        return Grade(float(holds), "" if holds else f"'{_short(text)}' {fails} '{_short(reference)}'")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


GRADER = StringCheck
