"""OpenTelemetry in JSON: one line holds the spans or log records of several resources; each becomes one record.

The names of a record are those of the protocol (opentelemetry-proto, JSON encoding), `startTimeUnixNano` and the
like; exporters that write `start_time_unix_nano` are read too. Besides there are:

    signal      `traces` or `logs`
    resource    the attributes of the resource, as an object
    scope       name, version and attributes of the instrumentation scope

Attributes are plain objects, 64-bit numbers are numbers although the encoding writes them as text, `kind` and
`status.code` are numbers also where an exporter writes their names, an unset status has code 0, and a time of 0,
which stands for none, is left out. Metrics are understood, and give no record. What the console exporters print, one
record over many lines, is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from mcpwatch.formats.lenient import parse_json

Record = dict[str, Any]

_MAX_DEPTH: Final = 64
_SNAKE: Final[dict[str, str]] = {
    "resource_spans": "resourceSpans", "resource_logs": "resourceLogs", "resource_metrics": "resourceMetrics",
    "scope_spans": "scopeSpans", "scope_logs": "scopeLogs", "log_records": "logRecords",
    "instrumentation_library_spans": "scopeSpans", "instrumentationLibrarySpans": "scopeSpans",
    "instrumentation_library_logs": "scopeLogs", "instrumentationLibraryLogs": "scopeLogs",
    "instrumentation_library": "scope", "instrumentationLibrary": "scope", "logs": "logRecords",
    "trace_id": "traceId", "span_id": "spanId", "parent_span_id": "parentSpanId", "trace_state": "traceState",
    "start_time_unix_nano": "startTimeUnixNano", "end_time_unix_nano": "endTimeUnixNano",
    "time_unix_nano": "timeUnixNano", "observed_time_unix_nano": "observedTimeUnixNano",
    "severity_number": "severityNumber", "severity_text": "severityText", "event_name": "eventName",
    "string_value": "stringValue", "bool_value": "boolValue", "int_value": "intValue",
    "double_value": "doubleValue", "array_value": "arrayValue", "kvlist_value": "kvlistValue",
    "bytes_value": "bytesValue",
}  # fmt: skip
_TIMES: Final = ("startTimeUnixNano", "endTimeUnixNano", "timeUnixNano", "observedTimeUnixNano")
_KINDS: Final = {
    "SPAN_KIND_UNSPECIFIED": 0, "SPAN_KIND_INTERNAL": 1, "SPAN_KIND_SERVER": 2, "SPAN_KIND_CLIENT": 3,
    "SPAN_KIND_PRODUCER": 4, "SPAN_KIND_CONSUMER": 5,
}  # fmt: skip
_CODES: Final = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
_SIGNALS: Final = (
    ("resourceSpans", "scopeSpans", "spans", "traces"),
    ("resourceLogs", "scopeLogs", "logRecords", "logs"),
)
_REQUEST: Final = frozenset({"resourceSpans", "resourceLogs", "resourceMetrics"})


def otlp(text: bytes) -> list[Record] | None:
    """The records of a line of OTLP in JSON; None where it is none."""
    try:
        document, _ = parse_json(text)
    except (ValueError, RecursionError):
        return None
    return records_of(document)


def records_of(document: Any) -> list[Record] | None:
    """The same for a line that is parsed already."""
    if not isinstance(document, dict):
        return None
    request = _named(document)
    if not any(isinstance(request.get(name), list) for name in _REQUEST):
        return None
    found = [
        record
        for resources, scopes, items, signal in _SIGNALS
        for resource in _objects(request.get(resources))
        for record in _of_resource(resource, scopes, items, signal)
    ]
    # a record of somebody else's, with one name of theirs among its own, must not pass for an empty export
    return found if found or request.keys() <= _REQUEST else None


def _of_resource(resource: Record, scopes: str, items: str, signal: str) -> Iterator[Record]:
    about = resource.get("resource")
    attributes = _attributes(about.get("attributes")) if isinstance(about, dict) else {}
    for scope in _objects(resource.get(scopes)):
        name = scope.get("scope")
        flat_scope = _flat(_named(name)) if isinstance(name, dict) else {}
        for item in _objects(scope.get(items)):
            yield _flat(item) | {"signal": signal, "resource": attributes, "scope": flat_scope}


def _flat(item: Record) -> Record:
    """A span, log record, event or scope with plain values."""
    flat = dict(item)
    if "attributes" in flat:
        flat["attributes"] = _attributes(flat["attributes"])
    for name in _TIMES:
        if name in flat:
            flat[name] = _number(flat[name])
            if flat[name] == 0:
                del flat[name]
    if "body" in flat:
        flat["body"] = _value(flat["body"], 0)
    for name in ("events", "links"):
        if name in flat:
            flat[name] = [_flat(part) for part in _objects(flat[name])]
    if "startTimeUnixNano" in flat or "kind" in flat:
        flat["kind"] = _coded(flat.get("kind"), _KINDS)
        status = flat.get("status")
        known = _named(status) if isinstance(status, dict) else {}
        flat["status"] = known | {"code": _coded(known.get("code"), _CODES)}
    return flat


def _named(item: Record) -> Record:
    """An object with the protocol's own names."""
    if item.keys().isdisjoint(_SNAKE):
        return item
    named: Record = {}
    for name, value in item.items():
        named.setdefault(_SNAKE.get(name, name), value)
    return named


def _objects(value: Any) -> Iterator[Record]:
    return (_named(item) for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _attributes(value: Any, depth: int = 0) -> Record:
    """Attributes as an object: from a list of keys and values, or as some exporters write them, an object already."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return {}
    return {
        item["key"]: _value(item.get("value"), depth + 1)
        for item in value
        if isinstance(item, dict) and isinstance(item.get("key"), str)
    }


def _value(value: Any, depth: int) -> Any:
    """An AnyValue: an object with one member that says its type."""
    if not isinstance(value, dict) or depth > _MAX_DEPTH:
        return value
    named = _named(value)
    if len(named) != 1:
        return None if not named else value
    ((kind, inner),) = named.items()
    if kind == "intValue":
        return _number(inner)
    if kind == "arrayValue":
        items = inner.get("values") if isinstance(inner, dict) else None
        return [_value(item, depth + 1) for item in items] if isinstance(items, list) else []
    if kind == "kvlistValue":
        return _attributes(inner.get("values") if isinstance(inner, dict) else None, depth + 1)
    return inner if kind in ("stringValue", "boolValue", "doubleValue", "bytesValue") else value


def _number(value: Any) -> Any:
    """A 64-bit number, which the encoding writes as text."""
    if isinstance(value, str) and len(value) < 21:
        try:
            return int(value)
        except ValueError:
            return value
    return value


def _coded(value: Any, names: dict[str, int]) -> Any:
    if value is None:
        return 0
    return names.get(value, value) if isinstance(value, str) else value
