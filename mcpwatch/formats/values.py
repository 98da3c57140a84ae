"""What stands in a field, turned into what an event holds there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mcpwatch.event import Auth
from mcpwatch.formats.fields import ABSENT, address_of, number_of, scopes_of, text_of
from mcpwatch.formats.paths import json_in


def single(value: Any) -> Any:
    """Of a list of texts, as of the values of a header, the first."""
    if value.__class__ is list:
        return value[0] if value and value[0].__class__ is str else None
    return value


def name_of(value: Any) -> Any:
    """A name as it stands: the reader knows the odd spellings of each, and looks each up once."""
    if value.__class__ is list:
        value = single(value)
    return value if value.__class__ is str else text_of(value)


def _text(value: Any) -> str | None:
    return text_of(single(value))


def _address(value: Any) -> str | None:
    value = single(value)
    return value if value.__class__ is str else address_of(value)


def _client(value: Any) -> Any:
    return text_of(value.get("name") or value.get("id")) if isinstance(value, dict) else name_of(value)


def _error(value: Any) -> str | None:
    value = single(value)
    if isinstance(value, dict):
        value = value.get("message")
    return value if isinstance(value, str) and value not in ABSENT else None


CONVERT: Final[dict[str, Callable[[Any], Any]]] = {
    "error": _error,
    "key_id": name_of,
    "client_id": _client,
    "session_id": name_of,
    "source_ip": _address,
    "scopes": scopes_of,
    "server": _text,
    "call_id": _text,
    "definition_sha256": _text,
    "sequence": number_of,
    "hash": _text,
    "prev_hash": _text,
}
"""The fields whose value says all by itself, and how it becomes that of the event."""


def params_of(value: object) -> dict[str, Any] | None:
    """Parameters as an object. JSON in a text is parsed, also if it was cut off; others stand under `value`."""
    if isinstance(value, str):
        inner = json_in(value)
        if inner is None:
            return {"value": value} if value else None
        value = inner
    if isinstance(value, dict):
        return value
    return None if value is None else {"value": value}


def called(
    method: str | None, tool: str | None, params: dict[str, Any]
) -> tuple[str | None, dict[str, Any] | None]:
    """Unwrap the parameters of a JSON-RPC `tools/call`, which hold the tool's name and its arguments."""
    if params.keys() <= {"name", "arguments", "_meta", "task"}:
        name, called = text_of(params["name"]), text_of(tool)
        if name is not None and (called == name or (called is None and method == "tools/call")):
            return name, params_of(params.get("arguments"))
    return tool, params


def auth_of(value: object, subject: str | None) -> Auth | None:
    """How a caller was authenticated, where the record says it, with the subject that it names elsewhere."""
    if isinstance(value, dict):
        own = text_of(value.get("subject"))
        times = [value.get(name) for name in ("issued_at", "expires_at")]
        issued, expires = (time if isinstance(time, str | int | float) else None for time in times)
        method = value.get("method")
        return Auth(method if isinstance(method, str) else None, own or subject, issued, expires)
    return Auth(subject=subject) if subject is not None else None
