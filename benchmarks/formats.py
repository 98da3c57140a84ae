"""What a record costs in other words: by the usual names, and by a mapping file, against the native schema.

`python -m benchmarks.formats`; `make bench` prints it too. The same calls are read in turn in each form, so that the
machine's moods are the same for all.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import orjson

from benchmarks.generate import records
from mcpwatch.formats.mapping import Mapping
from mcpwatch.formats.mappingfile import parse_mapping
from mcpwatch.formats.reader import Reader
from mcpwatch.sources.block import Block

MOST: Final = 3.0
"""Times the cost of a native record that one in other words may cost."""
RECORDS: Final = 40_000
SLICE: Final = 1_000

_USUAL: Final = {
    "timestamp": "ts", "event": "eventType", "tool": "toolName", "params": "arguments", "status": "outcome",
    "duration_ms": "latency_ms", "key_id": "keyId", "client_id": "client", "session_id": "sessionId",
    "source_ip": "remote_addr", "scopes": "scope",
}  # fmt: skip
_MAPPING: Final = b"""
match: {kind: [mcp_call, mcp_auth]}
fields:
  timestamp: meta.when
  event: meta.what
  tool: call.name
  params: call.args
  status: result.code
  duration_ms: took
  key_id: who.key
  client_id: who.client
  session_id: who.session
  source_ip: [who.address, who.peer]
  scopes: who.scopes
status: {"0": success, "1": error, "2": denied, "3": timeout}
variants:
  - when: {kind: mcp_auth}
    constants: {event: auth}
"""
_CODES: Final = {"success": 0, "error": 1, "denied": 2, "timeout": 3}


def usual(record: dict[str, Any]) -> dict[str, Any]:
    """The same record by other usual names."""
    return {_USUAL[name]: value for name, value in record.items()}


def mapped(record: dict[str, Any]) -> dict[str, Any]:
    """The same record as a product of its own would write it, with everything in objects."""
    get = record.get
    return {
        "kind": "mcp_call" if "tool" in record else "mcp_auth",
        "meta": {"when": get("timestamp"), "what": get("event")},
        "call": {"name": get("tool"), "args": get("params")},
        "result": {"code": _CODES.get(get("status", ""), get("status"))},
        "took": get("duration_ms"),
        "who": {
            "key": get("key_id"), "client": get("client_id"), "session": get("session_id"),
            "peer": get("source_ip"), "scopes": get("scopes"),
        },
    }  # fmt: skip


def costs(count: int = RECORDS) -> Iterator[tuple[str, float, float]]:
    """What a record costs in each form: (form, ratio to the native record, µs of CPU of the form at best)."""
    native = list(islice(records(count), count))
    mapping = parse_mapping(_MAPPING, "benchmark", "benchmark")
    forms: dict[str, tuple[list[bytes], tuple[Mapping, ...]]] = {
        "native": (native, ()),
        "usual names": (_rewritten(native, usual), ()),
        "mapping file": (_rewritten(native, mapped), (mapping,)),
    }
    taken: dict[str, list[float]] = {name: [] for name in forms}
    readers = {name: Reader("log", mappings=mappings) for name, (_, mappings) in forms.items()}
    for name, (lines, _) in forms.items():
        readers[name].read(Block("log", lines[:SLICE], 0, 1))
    gc.collect()
    gc.disable()
    for at in range(SLICE, count, SLICE):
        for name, (lines, _) in forms.items():
            block = Block("log", lines[at : at + SLICE], 0, 1)
            started = time.process_time()
            readers[name].read(block)
            taken[name].append((time.process_time() - started) / len(block.lines) * 1e6)
    gc.enable()
    for name, reader in readers.items():
        assert reader.events == reader.understood == count, (name, reader.reasons)
        ratios = [one / other for one, other in zip(taken[name], taken["native"], strict=True)]
        yield name, statistics.median(ratios), min(taken[name])


def _rewritten(lines: list[bytes], form: Callable[[dict[str, Any]], dict[str, Any]]) -> list[bytes]:
    return [orjson.dumps(form(orjson.loads(line))) for line in lines]


def main() -> None:
    """Measure and print."""
    for name, ratio, least in costs():
        said = f"{ratio:.2f} x cpu of a native record (goal: at most {MOST:.0f}), {least:.1f} µs at best"
        print(f"read a record by {name:40} {said}", flush=True)


if __name__ == "__main__":
    main()
