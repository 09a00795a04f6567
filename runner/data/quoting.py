"""What a message quotes of the data: on one line, every character visible, not too long."""

SHOWN_CHARACTERS = 40


def shown(text: str, most: int = SHOWN_CHARACTERS) -> str:
    r"""Return up to so many characters of a text, an escape such as `\n` for each that cannot be seen."""
    # An escape character from the data would otherwise reach the user's terminal.
    start = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[: most + 1])
    return start if len(start) <= most else f"{start[:most]}…"
