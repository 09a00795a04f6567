"""The managed identity: bearer tokens, who may use them where, until when.

Tokens live by the machine's own clock, not by the service's: identity and client run on one machine.
"""

import secrets
import time
from typing import NamedTuple, Protocol

from tests.emulator.messages import Answer, Refusal, Request

HEADER = "rehearsal"
# Which resources a token may be for, by what it opens.
AUDIENCES = {
    "data": ("https://ai.azure.com", "https://cognitiveservices.azure.com"),
    "management": ("https://management.azure.com", "https://management.core.windows.net"),
}


class Grant(NamedTuple):
    """What a token is for, and until when."""

    resource: str
    expires_at: float


class Tokens:
    """The tokens issued so far."""

    def __init__(self) -> None:
        self.issued: dict[str, Grant] = {}
        self._revoked: set[str] = set()

    def issue(self, resource: str, seconds: float) -> tuple[str, Grant]:
        """Return a new token for a resource."""
        token = "secret-token-" + secrets.token_urlsafe(24)
        self.issued[token] = Grant(resource.rstrip("/"), time.time() + seconds)
        return token, self.issued[token]

    def revoke(self) -> None:
        """Make all tokens invalid."""
        self._revoked = set(self.issued)

    def opens(self, token: str, area: str) -> bool:
        """Say whether a token is good for an area now."""
        grant = self.issued.get(token)
        if grant is None or token in self._revoked or grant.expires_at < time.time():
            return False
        return grant.resource in AUDIENCES[area]


class Guarded(Protocol):
    """A service that is opened by tokens."""

    identity: Tokens
    token_seconds: float


def token(cloud: Guarded, request: Request) -> Answer:
    """Answer as App Service does for a managed identity."""
    if request.headers.get("x-identity-header") != HEADER:
        return Answer(401, {"statusCode": 401, "message": "The X-IDENTITY-HEADER is missing or wrong."})
    resource = request.query.get("resource", "")
    text, grant = cloud.identity.issue(resource, cloud.token_seconds)
    return Answer(
        body={
            "access_token": text,
            "expires_on": str(int(grant.expires_at)),
            "resource": resource,
            "token_type": "Bearer",
            "client_id": "rehearsal",
        }
    )


def check(cloud: Guarded, request: Request, area: str) -> None:
    """Refuse a request whose bearer token does not open an area."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and cloud.identity.opens(text, area):
        return
    refusal = Refusal(401, "Access token is missing, invalid, audience is incorrect, or has expired.", "invalid_token")
    refusal.answer.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    raise refusal
