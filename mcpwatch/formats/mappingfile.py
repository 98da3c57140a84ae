"""Reads a mapping file: a format described in YAML, without code (docs/formats.md has every key).

name: acme-gateway
match: {audit_id: {present: true}, type: [tool_call, tool_error]}
fields:
  timestamp: meta.when
  tool: [call.name, call.tool]
  params: call.args
  duration: took
units: {duration: s}
status: {"0": success, "7": denied}
variants:
  - when: {type: tool_error}
    constants: {status: error}
"""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Iterator
from datetime import tzinfo
from pathlib import Path
from typing import Any, Final, Literal

from mcpwatch.documents import nodes
from mcpwatch.documents.read import read
from mcpwatch.documents.tree import DocumentError, FileKind, Node, NodeError, compose, located, quote
from mcpwatch.event import KINDS, OUTCOMES
from mcpwatch.formats import conditions, paths
from mcpwatch.formats.conditions import Condition, Test
from mcpwatch.formats.layout import FIELDS, Places
from mcpwatch.formats.mapping import Mapping, Variant
from mcpwatch.formats.paths import Each, PathError, compile_each, compile_path
from mcpwatch.formats.shapes import SHAPES
from mcpwatch.formats.template import Template, compile_template
from mcpwatch.formats.units import DURATION_UNITS, TIME_UNITS, Units
from mcpwatch.text import safe

MAX_BYTES: Final = 64 << 10
"""Longest mapping file, in bytes."""
MAX_VARIANTS: Final = 64
MAX_LISTED: Final = 256
"""Most entries of a list or a table of a mapping file."""

FORMATS: Final = ("auto", "native", "generic")
"""Formats that need no mapping file. `auto` takes each record as it comes."""
LACKS: Final = ("time", "tool", "params", "client", "status", "duration")
"""What a product can be told to log."""


class FormatError(DocumentError):
    """A format can't be used. The message says which file, what is wrong and what to do."""


KIND: Final = FileKind("a mapping file", "name: acme-gateway", FormatError)


def load_mappings(folder: Path) -> list[Mapping]:
    """Read every `*.yaml` of a folder, in order of their names.

    Raises:
        FormatError: The folder or one of the files can't be used, or two of them have one name.
    """
    if not folder.is_dir():
        raise FormatError(
            f"{safe(folder)}: no such folder; --formats takes a folder of mapping files (*.yaml)"
        )
    found: dict[str, Mapping] = {}
    places: dict[str, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        mapping = load_mapping(path)
        if mapping.name in found:
            raise FormatError(
                safe(
                    f"{path}: '{mapping.name}' is also in {places[mapping.name]}: give one another name", 400
                )
            )
        found[mapping.name], places[mapping.name] = mapping, path
    return list(found.values())


def load_mapping(path: Path) -> Mapping:
    """Read one mapping file. Raises FormatError."""
    try:
        data = read(path, KIND)
    except FileNotFoundError:
        raise FormatError(f"{safe(path)}: there is no such file") from None
    return parse_mapping(data, str(path), path.stem)


def parse_mapping(data: bytes, place: str, name: str) -> Mapping:
    """The mapping that a file describes.

    Args:
        place: Of the file, for messages.
        name: What the format is called where the file does not say it.

    Raises:
        FormatError: The file can't be used.
    """
    if len(data) > MAX_BYTES:
        raise FormatError(safe(f"{place}: larger than {MAX_BYTES >> 10} KiB: is this a mapping file?"))
    document = compose(data, place, KIND)
    with located(place, KIND):
        found = nodes.fields(document.root, "", _KEYS, ("fields",))
        return _mapping(document.root, found, found.get("name") or name)


def _mapping(root: Node, found: dict[str, Any], name: str) -> Mapping:
    shape = found.get("shape", "json")
    if (shape == "text") != ("lines" in found):
        message = (
            "a format of shape text needs 'lines': {name: template}"
            if shape == "text"
            else "'lines' goes only with shape: text"
        )
        raise NodeError(root.pair("lines")[0] if "lines" in found else root, message)  # type: ignore[index]
    units = _units(found)
    base = Places(
        {field: places for field, places in found["fields"].items() if places},
        found.get("constants", {}),
        found.get("status", {}),
        found.get("kinds", {}),
    )
    variants = [_variant(said, base, units) for said in found.get("variants", ())]
    _check_variants(root, found)
    if not variants or variants[-1].when:
        variants.append(Variant((), base, units))
    return Mapping(
        name=name,
        variants=tuple(variants),
        title=found.get("title", name),
        shape=shape,
        lines=found.get("lines", ()),
        match=found.get("match", ()),
        each=found.get("each"),
        parse=found.get("parse", ()),
        pair=found.get("pair", ()),
        by_order=found.get("pair_by", "id") == "order",
        lacks=found.get("lacks", {}),
        settings=found.get("settings", ""),
    )


def _units(found: dict[str, Any]) -> Units:
    units = found.get("units", {})
    return Units(
        TIME_UNITS.get(units.get("timestamp", "")),
        found.get("zone"),
        DURATION_UNITS[units.get("duration", "ms")],
    )


def _variant(said: dict[str, Any], base: Places, units: Units) -> Variant:
    upper = Places(*(said.get(key, {}) for key in ("fields", "constants", "status", "kinds")))
    return Variant(
        said.get("when", ()), base.under(upper), units, said.get("ignore", False), said.get("phase")
    )


def _check_variants(root: Node, found: dict[str, Any]) -> None:
    listed = root.get("variants")
    always = False
    for node in listed.items if listed is not None else ():
        if always:
            raise NodeError(
                node, "no record gets here: the variant before has no 'when', so all are read by it"
            )
        always = not (node.get("when") or node).pairs or node.get("when") is None
        phase = node.pair("phase")
        if phase is not None and "pair" not in found:
            raise NodeError(phase[0], "'phase' needs 'pair': what a start and its end have in common")
    phases = {said.get("phase") for said in found.get("variants", ())}
    pair = root.pair("pair") or root.pair("pair_by")
    if pair is not None and not {"start", "end"} <= phases:
        raise NodeError(
            pair[0], f"'{pair[0].text}' needs a variant with 'phase: start' and one with 'phase: end'"
        )
    if "pair_by" in found and "pair" not in found:
        raise NodeError(root.pair("pair_by")[0], "'pair_by' needs 'pair'")  # type: ignore[index]


def _path(node: Node, place: str) -> paths.Path:
    try:
        return compile_path(nodes.text(node, place))
    except PathError as error:
        raise NodeError(node, f"{place}: {quote(node.text)} is no path: {error}") from None


def _each(node: Node, place: str) -> Each:
    try:
        return compile_each(nodes.text(node, place))
    except PathError as error:
        raise NodeError(node, f"{place}: {quote(node.text)} leads to no elements: {error}") from None


def _template(node: Node, place: str) -> Template:
    try:
        return compile_template(nodes.text(node, place))
    except ValueError as error:
        raise NodeError(node, f"{place}: {quote(node.text)} is no template: {error}") from None


def _listed(node: Node) -> tuple[Node, ...]:
    """The items of a list; of a single value that."""
    return node.items if node.kind == "list" else (node,)


def _entries(node: Node, place: str) -> Iterator[tuple[str, Node, str]]:
    found = nodes.entries(node, place)
    if len(node.pairs) > MAX_LISTED:
        raise NodeError(node, f"{place}: more than {MAX_LISTED} entries")
    return found


def _of_fields(node: Node, place: str) -> Iterator[tuple[str, Node, str]]:
    for (name, value, inner), (key, _) in zip(_entries(node, place), node.pairs, strict=True):
        if name not in FIELDS:
            near = difflib.get_close_matches(name[:80], FIELDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(FIELDS)}"
            raise NodeError(key, f"unknown field {quote(name)} in {place}; {hint}")
        yield name, value, inner


def _places(node: Node, place: str, *, none: bool) -> dict[str, tuple[paths.Path, ...]]:
    found = {}
    for name, value, inner in _of_fields(node, place):
        listed = _listed(value)
        if (
            (not listed and not none)
            or len(listed) > MAX_LISTED
            or any(item.kind != "text" for item in listed)
        ):
            nodes.fail(value, inner, "a path such as call.name, or a list of them")
        found[name] = tuple(_path(item, inner) for item in listed)
    return found


def _fields(node: Node, place: str) -> dict[str, tuple[paths.Path, ...]]:
    found = _places(node, place, none=False)
    if not found:
        nodes.fail(node, place, "a mapping, for example {tool: call.name}")
    return found


def _fields_over(node: Node, place: str) -> dict[str, tuple[paths.Path, ...]]:
    return _places(node, place, none=True)


def _constants(node: Node, place: str) -> dict[str, str]:
    found = {}
    for name, value, inner in _of_fields(node, place):
        known = _CONSTANT_WORDS.get(name)
        found[name] = (_one_of(known) if known else nodes.text)(value, inner)
    return found


_CONSTANT_WORDS: Final = {"event": KINDS, "status": OUTCOMES}


def _one_of(known: frozenset[str]) -> nodes.Reader:
    words = sorted(known)

    def word(node: Node, place: str) -> str:
        if node.kind == "text" and node.text not in known:
            near = difflib.get_close_matches(node.text[:80], words, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(words)}"
            raise NodeError(node, f"{place}: no {quote(node.text)}; {hint}")
        return nodes.text(node, place)

    return word


def _words(known: frozenset[str]) -> nodes.Reader:
    """A table of a log's words, each with the one of ours that it means."""
    word = _one_of(known)
    return lambda node, place: {name: word(value, inner) for name, value, inner in _entries(node, place)}


def _texts(node: Node, place: str) -> tuple[str, ...]:
    found = tuple(nodes.text(item, place) for item in _listed(node))
    if not found or len(found) > MAX_LISTED:
        nodes.fail(node, place, "a text or a list of them")
    return found


def _scalars(node: Node, place: str) -> tuple[str, ...]:
    """Values as JSON writes them: nothing at all, unquoted, is `null`."""
    listed = _listed(node)
    if not listed or len(listed) > MAX_LISTED or any(item.kind != "text" for item in listed):
        nodes.fail(node, place, "a value, a list of values, or one of {present, starts, contains, not, kind}")
    return tuple("null" if item.null else item.text for item in listed)


def _kind_of_value(node: Node, place: str) -> Test:
    return conditions.KINDS_OF_VALUES[nodes.one_of(*conditions.KINDS_OF_VALUES)(node, place)]


_TESTS: Final[dict[str, nodes.Reader]] = {
    "present": lambda node, place: conditions.present(nodes.flag(node, place)),
    "starts": lambda node, place: conditions.starts(_texts(node, place)),
    "contains": lambda node, place: conditions.contains(_texts(node, place)),
    "not": lambda node, place: conditions.differs(_scalars(node, place)),
    "kind": _kind_of_value,
}


def _conditions(node: Node, place: str) -> tuple[Condition, ...]:
    found = []
    for (name, value, inner), (key, _) in zip(_entries(node, place), node.pairs, strict=True):
        try:
            path = compile_path(name)
        except PathError as error:
            raise NodeError(key, f"{place}: {quote(name)} is no path: {error}") from None
        if value.kind == "map":
            tests = nodes.fields(value, inner, _TESTS)
            if len(tests) != 1:
                nodes.fail(value, inner, f"one of {', '.join(_TESTS)}")
            found.append(Condition(path, next(iter(tests.values()))))
        else:
            found.append(Condition(path, conditions.equals(_scalars(value, inner))))
    return tuple(found)


def _lines(node: Node, place: str) -> tuple[tuple[str, Template], ...]:
    found = [
        (name, _template(item, inner))
        for name, value, inner in _entries(node, place)
        for item in _listed(value)
    ]
    if not found:
        nodes.fail(node, place, 'a mapping, such as {called: "Calling tool {tool}"}')
    return tuple(found)


def _parse(node: Node, place: str) -> tuple[tuple[paths.Path, tuple[Template, ...]], ...]:
    found = []
    for (name, value, inner), (key, _) in zip(_entries(node, place), node.pairs, strict=True):
        try:
            path = compile_path(name)
        except PathError as error:
            raise NodeError(key, f"{place}: {quote(name)} is no path: {error}") from None
        found.append((path, tuple(_template(item, inner) for item in _listed(value))))
    return tuple(found)


def _pair(node: Node, place: str) -> tuple[paths.Get, ...]:
    """Places, each a path or a list of paths of which the first that holds something counts."""
    if node.kind != "list" or not node.items or len(node.items) > MAX_LISTED:
        nodes.fail(node, place, "a list of paths, such as [session, request.id]")
    found = []
    for number, item in enumerate(node.items):
        several = tuple(_path(each, f"{place}[{number}]") for each in _listed(item))
        if not several:
            nodes.fail(item, f"{place}[{number}]", "a path or a list of paths")
        found.append(paths.first_of(several))
    return tuple(found)


def _zone(node: Node, place: str) -> tzinfo | Literal["local"]:
    name = nodes.text(node, place)
    if name == "local":
        return "local"
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        nodes.fail(node, place, f"local or the name of a zone such as Europe/Berlin, not {quote(name)}")


def _unit(units: dict[str, Any]) -> nodes.Reader:
    known = tuple(units)

    def unit(node: Node, place: str) -> str:
        if node.kind != "text" or node.text not in units:
            nodes.fail(node, place, f"one of {', '.join(known)}, not {quote(node.text)}")
        return node.text

    return unit


_UNITS: Final = {"timestamp": _unit(TIME_UNITS), "duration": _unit(DURATION_UNITS)}


def _true(node: Node, place: str) -> bool:
    if not nodes.flag(node, place):
        nodes.fail(node, place, "true, or left out")
    return True


_VARIANT: Final[dict[str, nodes.Reader]] = {
    "when": _conditions,
    "fields": _fields_over,
    "constants": _constants,
    "status": _words(OUTCOMES),
    "kinds": _words(KINDS),
    "ignore": _true,
    "phase": nodes.one_of("start", "end"),
}


def _variants(node: Node, place: str) -> tuple[dict[str, Any], ...]:
    if len(node.items) > MAX_VARIANTS:
        raise NodeError(node.items[MAX_VARIANTS], f"more than {MAX_VARIANTS} variants")
    return tuple(nodes.fields(item, inner, _VARIANT) for item, inner in nodes.rows(node, place))


def _name(node: Node, place: str) -> str:
    name = nodes.text(node, place)
    if safe(name, 60) != name or name in FORMATS or " > " in name:
        nodes.fail(
            node, place, f"a name of at most 60 printable characters, and none of {', '.join(FORMATS)}"
        )
    return name


_KEYS: Final[dict[str, nodes.Reader]] = {
    "name": _name,
    "title": nodes.phrase(120),
    "shape": nodes.one_of("json", "text", *SHAPES),
    "lines": _lines,
    "match": _conditions,
    "each": _each,
    "fields": _fields,
    "kinds": _words(KINDS),
    "status": _words(OUTCOMES),
    "units": lambda node, place: nodes.fields(node, place, _UNITS),
    "zone": _zone,
    "constants": _constants,
    "parse": _parse,
    "variants": _variants,
    "pair": _pair,
    "pair_by": nodes.one_of("id", "order"),
    "lacks": lambda node, place: nodes.fields(node, place, dict.fromkeys(LACKS, nodes.phrase(400))),
    "settings": nodes.text,
}
