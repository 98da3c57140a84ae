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

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from mcpwatch.errors import Unusable
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

MAX_MAPPING_BYTES: Final = 256 * 1024


class FormatError(Unusable):
    """A format can't be used. The message says which file, what is wrong and what to do."""


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
        return all(str(look_up(record, name)) == value for name, value in self.match.items())


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
    return words.get(str(value)) or status_of(value)


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
        if path.exists() and not path.is_file():
            raise FormatError(f"{safe(path)}: is no regular file")
        with path.open("rb") as file:
            data = file.read(MAX_MAPPING_BYTES + 1)
        if len(data) > MAX_MAPPING_BYTES:
            raise FormatError(f"{safe(path)}: over {MAX_MAPPING_BYTES // 1024} KiB: not a mapping file")
        document = yaml.safe_load(data)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise FormatError(f"{safe(path)}: {safe(error, 300)}") from None
    if not isinstance(document, dict) or not isinstance(document.get("fields"), dict):
        raise FormatError(
            f"{safe(path)}: a mapping file needs `fields:`, for example `fields: {{tool: call.name}}`"
        )
    unknown = document.keys() - {"name", "match", "fields", "status", "constants"}
    if unknown:
        raise FormatError(f"{safe(path)}: unknown key {safe(sorted(map(str, unknown))[0], 60)!r}")
    fields: dict[str, tuple[str, ...]] = {}
    for name, places in document["fields"].items():
        if name not in ALIASES:
            raise FormatError(
                f"{safe(path)}: unknown field {safe(name, 60)!r}; known are {', '.join(ALIASES)}"
            )
        listed = places if isinstance(places, list) else [places]
        if not listed or not all(isinstance(place, str) for place in listed):
            raise FormatError(
                f"{safe(path)}: {safe(name, 60)}: write a name, a dotted path or a list of them"
            )
        fields[name] = tuple(listed)
    status = _words(document.get("status"), path, "status")
    if wrong := sorted(set(status.values()) - OUTCOMES):
        raise FormatError(
            f"{safe(path)}: status: {safe(wrong[0], 60)!r} is no outcome ({', '.join(sorted(OUTCOMES))})"
        )
    constants = _words(document.get("constants"), path, "constants")
    if strange := sorted(constants.keys() - ALIASES.keys()):
        raise FormatError(
            f"{safe(path)}: constants: unknown field {safe(strange[0], 60)!r}; known are {', '.join(ALIASES)}"
        )
    if "event" in constants and constants["event"] not in KINDS:
        raise FormatError(f"{safe(path)}: constants: event must be one of {', '.join(sorted(KINDS))}")
    return FieldMap(
        name=str(document.get("name") or path.stem),
        fields=fields,
        match=_words(document.get("match"), path, "match"),
        status=status,
        constants=constants,
    )


def _words(value: object, path: Path, name: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormatError(f"{safe(path)}: {name}: write it as {{word: word}}")
    return {str(key): str(item) for key, item in value.items()}
