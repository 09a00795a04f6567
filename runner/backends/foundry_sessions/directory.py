"""The sessions of a project, as the service lists and shows them: without what they were labelled with."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from runner.backends.foundry_sessions.api import Api
from runner.remote.engine.service import SessionGone

PAGE = 100
OVER = ("succeeded", "failed")
SOON_SECONDS = 120.0
"""A session whose creation was not answered has had its last request within this time, as nobody drives it."""


class Lora(msgspec.Struct):
    """The adapter of a session's model, as far as the service shows it."""

    rank: int = 0
    alpha: float | None = None
    seed: int | None = None


class _Model(msgspec.Struct):
    base_model: str
    lora_config: Lora | None = None


class _Session(msgspec.Struct):
    status: str
    model_data: _Model


class _Summary(msgspec.Struct):
    session_id: str
    base_model: str
    status: str
    last_request_time: datetime
    lora_rank: int | None = None


class _Page(msgspec.Struct):
    data: list[_Summary]


class Directory:
    """What the service reports of its sessions."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def shown(self, session: str) -> _Session:
        """Return a session, one that is over, too. Raises `SessionGone` where it was deleted."""
        return msgspec.json.decode(self._api.ask("GET", f"/{session}").content, type=_Session)

    def listed(self) -> Iterator[_Summary]:
        """Yield all sessions of the project."""
        offset = 0
        while True:
            answer = self._api.ask("GET", "", query=f"&limit={PAGE}&offset={offset}")
            page = msgspec.json.decode(answer.content, type=_Page).data
            yield from page
            offset += len(page)
            # The cursor has no "more" in it; a page that is not full is the last.
            if len(page) < PAGE:
                return

    def unanswered(self, model: str, rank: int, seed: int, at: float, others: Sequence[str]) -> Sequence[str]:
        """Return the session whose creation at a time was never answered, if it is certain which one it is.

        `others` are those that were there before.
        """
        found = [
            each.session_id
            for each in self.listed()
            if each.status not in OVER and each.session_id not in others
            # Nobody has asked it anything since: one that somebody drives is not ours.
            and each.last_request_time.timestamp() < at + SOON_SECONDS
            and (each.base_model, each.lora_rank) == (model, rank)
            and self._seed(each.session_id) == seed
        ]  # fmt: skip
        # Of several nobody can tell which one is ours, and the others' weights would be lost.
        return found if len(found) == 1 else []

    def await_running(self, session: str) -> None:
        """Return when a session's model is ready. Raises `SessionGone` where it never will be."""
        while (status := self.shown(session).status) in ("created", "queued"):
            time.sleep(self._api.http.pause(0))
        if status in OVER:
            raise SessionGone(f"{session}: it has {status} before it was ready")

    def _seed(self, session: str) -> int | None:
        lora = self.shown(session).model_data.lora_config
        return None if lora is None else lora.seed
