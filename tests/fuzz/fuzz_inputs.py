"""Coverage-guided search for files and lines that break their readers: `python tests/fuzz/fuzz_inputs.py lines`.

Needs atheris (`pip install atheris`; not among the project's dependencies). The first argument names a target, the
others are for libFuzzer. Every promise here is also tried with hypothesis in tests/faults/test_faults_parsers.py.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["mcpwatch"]):
    from mcpwatch.detection.rulefile import parse as parse_rule
    from mcpwatch.documents.tree import MAX_NODES, DocumentError, FileKind, Node, compose
    from mcpwatch.formats.mappingfile import FormatError, parse_mapping
    from mcpwatch.formats.reader import Reader
    from mcpwatch.formats.transport import MAX_LEVELS, unwrap
    from mcpwatch.formats.twice import said_twice
    from mcpwatch.policy.load import parse as parse_policy
    from mcpwatch.sources.block import Block, SourceError
    from mcpwatch.sources.compressed import CHUNK, CompressedStream
    from mcpwatch.text import safe

NOW: Final = 1_795_132_800 * 10**9
KIND: Final = FileKind("a test", "a: 1", DocumentError)
MAPPING: Final = parse_mapping(
    b"match: {kind: 1}\nfields: {tool: [call.name, t], params: call}\neach: calls[]", "acme.yaml", "acme"
)
SCRATCH: Final = Path(tempfile.mkdtemp(prefix="mcpwatch-fuzz-")) / "packed"


def told(error: Exception) -> None:
    """What is said of bad input is one line of what can be seen."""
    assert str(error) == safe(str(error), 10_000), error


def transports(data: bytes) -> None:
    """Unwrapping ends, never raises, gives what was inside and nothing else, and times that are times."""
    line, level = data.strip(), 0
    while (found := unwrap(line, NOW)) is not None and level < MAX_LEVELS:
        name, inner = found
        assert len(inner.text) <= len(line), name
        assert inner.text in line or name == "journal"
        line, level = inner.text.strip(), level + 1


def lines(data: bytes) -> None:
    """Every line is counted once, whatever it is, live and saved, with a mapping file and without."""
    block = Block("a", data.split(b"\n"), 0, 1, written_ns=NOW)
    if data[:1] < b"\x10":
        block.repeats = frozenset(range(0, len(block.lines), 3))
    for reader, now in ((Reader("a"), None), (Reader("a"), NOW), (Reader("a", mappings=[MAPPING]), None)):
        events = reader.read(block, now)
        counted = reader.understood + reader.not_understood + reader.blank + reader.repeated + reader.joined
        assert reader.lines == counted == len(block.lines)
        assert len(events) == reader.events or reader.joined
        assert sum(reader.formats.values()) >= reader.understood + reader.joined
        assert reader.repeated == len(block.repeats)
        for event in events:
            twice = said_twice(event)
            assert not event.flags & 16 or twice, "flagged, and nothing to show for it"


def compressed(data: bytes) -> None:
    """Reading ends, in pieces of bounded size, with the whole or with what is wrong and where."""
    SCRATCH.write_bytes(data)
    fd = os.open(SCRATCH, os.O_RDONLY)
    try:
        stream = CompressedStream(fd, "packed")
        made = 0
        while (piece := stream.read()) and made < 1 << 24:
            assert len(piece) <= CHUNK
            made += len(piece)
        assert piece or stream.consumed == len(data)
    except SourceError as error:
        told(error)
    finally:
        os.close(fd)


def documents(data: bytes) -> None:
    """A document is a tree whose places are in its text, or is refused in one line."""
    try:
        document = compose(data, "t", KIND)
    except DocumentError as error:
        told(error)
        return
    assert document.root.size <= MAX_NODES
    assert document.bom + document.text.encode() == data
    _inside(document.root, len(document.text), document.text.count("\n") + 1)


def _inside(node: Node, length: int, rows: int) -> None:
    assert 0 <= node.start <= node.end <= length
    assert 1 <= node.line <= rows
    for child in (*node.items, *(each for pair in node.pairs for each in pair)):
        if child.odd != "an alias":
            _inside(child, length, rows)


def mappings(data: bytes) -> None:
    """A mapping file is refused in one line, or reads any record."""
    try:
        found = parse_mapping(data, "m.yaml", "m")
    except FormatError as error:
        told(error)
        return
    reader = Reader("a", mappings=[found], format_name=found.name)
    reader.read(Block("a", [b'{"t":{"a":[1]},"a":"b"}', data.replace(b"\n", b" ")], 0, 1))
    assert reader.lines == 2


def rules(data: bytes) -> None:
    """A rule file is a rule, or is refused in one line."""
    try:
        parse_rule(data, "r.yaml")
    except DocumentError as error:
        told(error)


def policies(data: bytes) -> None:
    """A policy file is a policy, or is refused in one line."""
    try:
        parse_policy(data, Path("p.yaml"))
    except DocumentError as error:
        told(error)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (transports, lines, compressed, documents, mappings, rules, policies)
}


def main() -> None:
    """Hand the target to libFuzzer."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"name a target: {', '.join(TARGETS)}")
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
