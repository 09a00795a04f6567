"""Pages of lists: `after`, `limit`, and what says whether there is more."""

from typing import Any

from tests.emulator.messages import Refusal, Request


def page(request: Request, items: list[dict[str, Any]], default: int, most: int, ends: bool = True) -> dict[str, Any]:
    """Return the page of wire objects that a request asks for; `ends` adds the ids of the first and the last."""
    start = 0
    if "after" in request.query:
        after = request.query["after"]
        start = next((number + 1 for number, item in enumerate(items) if item["id"] == after), -1)
        if start < 0:
            raise Refusal(400, f"Invalid value for 'after': no object with id '{after}'.", "invalid_value", "after")
    limit = _limit(request, default, most)
    data = items[start : start + limit]
    body: dict[str, Any] = {"object": "list", "data": data, "has_more": start + limit < len(items)}
    if ends:
        body |= {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return body


def _limit(request: Request, default: int, most: int) -> int:
    text = request.query.get("limit", str(default))
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise Refusal(400, f"Invalid value for 'limit': '{text}'; expected 1 to {most}.", "invalid_value", "limit")
    return int(text)
