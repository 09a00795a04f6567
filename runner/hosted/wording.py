"""What a service says, as part of a sentence of ours: short, without secrets; and how long it says to wait.

Needs no SDK, so that whoever asks a service by another way can use it.
"""

import re
from datetime import UTC, datetime

# Wide rather than narrow: a word too many that is struck out costs nothing.
_NAMES = "api[-_ ]?key(?: provided)?|subscription-key|access_token|client_secret|accountkey|sharedaccesskey|sig"
_SECRETS = re.compile(rf"(?i)(bearer\s+|(?:{_NAMES})[\\\"']*\s*[=:]\s*[\\\"']*)[^\s\"',;&\\]+")


def line(text: str) -> str:
    """Return a foreign text as part of a sentence: without markup, on one line, not too long, without secrets."""
    # A proxy's page would come with its markup; 300 characters show what it is.
    plain = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    # Cut first: `redact` strikes out the beginning of a secret, too, and sees no more text than is shown.
    return redact(plain[:300] + ("…" if len(plain) > 300 else "")).rstrip(".")


def redact(text: str) -> str:
    """Return a text with what may be a secret struck out: tokens, keys, signatures."""
    return _SECRETS.sub(lambda found: f"{found[1]}[…]", text)


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, given as seconds or as a date (RFC 9110, 10.2.3)."""
    from email.utils import parsedate_to_datetime

    if not value:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    # RFC 9110 dates are in GMT, and some servers forget to say so.
    zoned = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (zoned - datetime.now(UTC)).total_seconds())
