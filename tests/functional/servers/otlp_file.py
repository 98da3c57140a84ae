"""OpenTelemetry to a file: one line of OTLP-JSON for each batch, as the Collector's file exporter writes it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

_IDS = ("traceId", "spanId", "parentSpanId")


class FileExporter(SpanExporter):
    """Appends spans to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write one line."""
        line = MessageToDict(encode_spans(spans), use_integers_for_enums=True)
        _name_ids_in_hex(line)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return SpanExportResult.SUCCESS


def export_to(path: Path, service: str) -> None:
    """From now on every span of this process goes to the file."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(path)))
    trace.set_tracer_provider(provider)


def _name_ids_in_hex(node: Any) -> None:
    # OTLP-JSON departs from protobuf's JSON here: ids are hex, where protobuf writes bytes as base64
    if isinstance(node, list):
        for item in node:
            _name_ids_in_hex(item)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name in _IDS:
                node[name] = base64.b64decode(value).hex()
            else:
                _name_ids_in_hex(value)
