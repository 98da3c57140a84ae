"""Maps a JSON object to an audit event: by the alias table, or by a mapping file for one kind of log.

A mapping file is YAML, without code:

    name: acme-gateway
    match: {kind: mcp_call}             # optional: only records with these values
    fields:                             # field -> where it stands; a list is tried in order
      timestamp: meta.when
      tool: [call.name, call.tool]
      params: call.args
      duration_s: took                  # duration_ms or duration_s, by the unit of the log
    status: {"0": success, "7": denied} # words of this log -> outcome
    constants: {server: acme}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from mcpwatch.documents import nodes
from mcpwatch.documents.read import read
from mcpwatch.documents.tree import DocumentError, FileKind, Node, NodeError, compose, located, quote
from mcpwatch.event import KINDS, OUTCOMES, AuditEvent, Auth
from mcpwatch.formats.fields import (
    ALIASES,
    BESIDE,
    EVENT_WORDS,
    FAILED_LOGINS,
    address_of,
    duration_of,
    look_up,
    number_of,
    scopes_of,
    status_of,
    text_of,
)
from mcpwatch.text import safe


class FormatError(DocumentError):
    """A format can't be used. The message says which file, what is wrong and what to do."""


KIND: Final = FileKind("a mapping file", "fields: {tool: call.name}", FormatError)


@dataclass(frozen=True, slots=True)
class FieldMap:
    """Where the fields of one kind of log stand.

    Attributes:
        fields: Field -> names or dotted paths, tried in order.
        match: Names or paths with the value that a record must have to be of this kind.
        status: Further words for outcomes.
        constants: Fields that are the same for every record.
    """

    name: str
    fields: Mapping[str, tuple[str, ...]]
    match: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)

    def claims(self, record: dict[str, Any]) -> bool:
        """Whether the record is of this kind."""
        return all(_word(look_up(record, name)) == value for name, value in self.match.items())


GENERIC: Final = FieldMap("generic", ALIASES)


def read_record(record: dict[str, Any], mapping: FieldMap) -> AuditEvent | None:
    """Turn a JSON object into an event, all but its time; None if not one field of it is known.

    The time is left in `timestamp` for the reader, which knows what to do where it is missing.
    """
    found = {name: _first(record, names) for name, names in mapping.fields.items()}
    if all(value is None for name, value in found.items() if name not in BESIDE):
        return None
    for name, constant in mapping.constants.items():
        if found.get(name) is None:
            found[name] = constant
    method = found.get("method") if isinstance(found.get("method"), str) else None
    tool = text_of(found.get("tool"))
    tool, params = _call(method, tool, _params(found.get("params")))
    word = found["event"].strip().lower() if isinstance(found.get("event"), str) else ""
    status = _status(found.get("status"), mapping.status)
    if word in FAILED_LOGINS and status in ("unknown", "error"):
        status = "unauthenticated"
    timestamp = found.get("timestamp")
    duration = duration_of(found.get("duration_ms"))
    return AuditEvent(
        timestamp=timestamp if isinstance(timestamp, str | int | float) else None,
        event=kind_of(word, method, tool),
        tool=tool,
        params=params,
        status=status,
        error=_error(found.get("error")),
        duration_ms=duration if duration is not None else duration_of(found.get("duration_s"), 1000.0),
        key_id=text_of(found.get("key_id")),
        client_id=_client(found.get("client_id")),
        session_id=text_of(found.get("session_id")),
        source_ip=address_of(found.get("source_ip")),
        scopes=scopes_of(found.get("scopes")),
        auth=_auth(found.get("auth"), text_of(found.get("subject"))),
        server=text_of(found.get("server")),
        call_id=text_of(found.get("call_id")),
        definition_sha256=text_of(found.get("definition_sha256")),
        sequence=number_of(found.get("sequence")),
        hash=text_of(found.get("hash")),
        prev_hash=text_of(found.get("prev_hash")),
    )


def kind_of(word: str, method: str | None, tool: str | None) -> str:
    """The kind of a record from its event word, its MCP method and whether it names a tool."""
    if word in EVENT_WORDS:
        return EVENT_WORDS[word]
    if tool is not None or method == "tools/call":
        return "tool_call"
    return "request"


def _first(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        value = look_up(record, name)
        if value is not None:
            return value
    return None


def _status(value: object, words: Mapping[str, str]) -> str:
    return (words.get(_word(value)) if words else None) or status_of(value)


def _word(value: object) -> str:
    """A value as it is written in JSON, without its quotes: what a mapping file calls it by."""
    return _SPELLED.get(value, str(value)) if value is None or isinstance(value, bool) else str(value)


_SPELLED: Final[dict[object, str]] = {None: "null", True: "true", False: "false"}


def _params(value: object) -> dict[str, Any] | None:
    """Parameters as an object. JSON in a string is parsed once; anything else stands under `value`."""
    if isinstance(value, str):
        if value.startswith(("{", "[")):
            try:
                value = orjson.loads(value)
            except ValueError:
                return {"value": value}
        else:
            return {"value": value} if value else None
    if isinstance(value, dict):
        return value
    return None if value is None else {"value": value}


def _call(
    method: str | None, tool: str | None, params: dict[str, Any] | None
) -> tuple[str | None, dict[str, Any] | None]:
    """Unwrap the parameters of a JSON-RPC `tools/call`, which hold the tool's name and its arguments."""
    if params is not None and "name" in params and params.keys() <= {"name", "arguments", "_meta", "task"}:
        name = text_of(params["name"])
        if name is not None and (tool == name or (tool is None and method == "tools/call")):
            return name, _params(params.get("arguments"))
    return tool, params


def _client(value: object) -> str | None:
    return text_of(value.get("name") or value.get("id")) if isinstance(value, dict) else text_of(value)


def _error(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("message")
    return value if isinstance(value, str) and value else None


def _auth(value: object, subject: str | None) -> Auth | None:
    if isinstance(value, dict):
        own = text_of(value.get("subject"))
        times = [value.get(name) for name in ("issued_at", "expires_at")]
        issued, expires = (time if isinstance(time, str | int | float) else None for time in times)
        method = value.get("method")
        return Auth(method if isinstance(method, str) else None, own or subject, issued, expires)
    return Auth(subject=subject) if subject is not None else None


def load_mappings(folder: Path) -> list[FieldMap]:
    """Read every `*.yaml` of a folder, in order of their names.

    Raises:
        FormatError: The folder or one of the files can't be used.
    """
    if not folder.is_dir():
        raise FormatError(
            f"{safe(folder)}: no such folder; --formats takes a folder of mapping files (*.yaml)"
        )
    return [load_mapping(path) for path in sorted(folder.glob("*.yaml"))]


def load_mapping(path: Path) -> FieldMap:
    """Read one mapping file. Raises FormatError."""
    try:
        data = read(path, KIND)
    except FileNotFoundError:
        raise FormatError(f"{safe(path)}: there is no such file") from None
    return parse_mapping(data, str(path), path.stem)


def parse_mapping(data: bytes, place: str, name: str) -> FieldMap:
    """The mapping that a file describes.

    Args:
        place: Of the file, for messages.
        name: What the format is called where the file does not say it.

    Raises:
        FormatError: The file can't be used.
    """
    document = compose(data, place, KIND)
    with located(place, KIND):
        found = nodes.fields(document.root, "", _KEYS, ("fields",))
    return FieldMap(
        name=found.get("name") or name,
        fields=found["fields"],
        match=found.get("match", {}),
        status=found.get("status", {}),
        constants=found.get("constants", {}),
    )


def _places(node: Node, place: str) -> dict[str, tuple[str, ...]]:
    found = {}
    for key, value in _known_fields(node, place):
        listed = value.items if value.kind == "list" else (value,)
        if not listed or any(item.kind != "text" or not item.text for item in listed):
            nodes.fail(value, f"{place}.{safe(key, 60)}", "a name, a dotted path or a list of them")
        found[key] = tuple(item.text for item in listed)
    return found


def _known_fields(node: Node, place: str) -> Iterator[tuple[str, Node]]:
    if node.kind != "map":
        nodes.fail(node, place, "a mapping, for example {tool: call.name}")
    for key, value in node.pairs:
        if key.text not in ALIASES:
            raise NodeError(
                key, f"unknown field {quote(key.text)} in {place}; known are {', '.join(ALIASES)}"
            )
        yield key.text, value


def _words(node: Node, place: str) -> dict[str, str]:
    return {name: nodes.text(value, inner) for name, value, inner in nodes.entries(node, place)}


def _outcomes(node: Node, place: str) -> dict[str, str]:
    outcome = nodes.one_of(*sorted(OUTCOMES))
    return {name: outcome(value, inner) for name, value, inner in nodes.entries(node, place)}


def _constants(node: Node, place: str) -> dict[str, str]:
    if node.null:
        return {}
    found = {key: nodes.text(value, f"{place}.{key}") for key, value in _known_fields(node, place)}
    if "event" in found:
        nodes.one_of(*sorted(KINDS))(node.get("event") or node, f"{place}.event")
    return found


_KEYS: Final[dict[str, nodes.Reader]] = {
    "name": nodes.text,
    "match": _words,
    "fields": _places,
    "status": _outcomes,
    "constants": _constants,
}
