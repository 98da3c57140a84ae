"""A first mapping file for records of an unknown format, guessed from their names and values.

Every guess stands in the file beside a value of the sample, for whoever knows the log to check. A word is taken for
an outcome only where it says so itself; others are listed and left open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from mcpwatch.formats.fields import status_of
from mcpwatch.formats.guesses import (
    ANSWERS,
    ARGUMENTS,
    GUESSES,
    IDS,
    MAX_WORDS,
    PARAMS,
    PHASES,
    SIGNATURES,
    Guess,
    is_http,
    is_known_kind,
    kind_of,
    outcome_of,
    outcome_of_end,
    phase_of,
    says_its_unit,
    unit_of,
    word_of,
)
from mcpwatch.formats.sample import Spot, spots_of
from mcpwatch.text import redact, safe
from mcpwatch.times import parse_time

_EXAMPLE: Final = 44
_MAX_MATCHED: Final = 3
_MAX_SIGNED: Final = 2
_MAX_OPEN_WORDS: Final = 8


def suggest(
    records: Sequence[dict[str, Any]], name: str, *, shape: str = "json", template: str = "", remark: str = ""
) -> str | None:
    """The text of a mapping file for these records; None where not even a tool or a time can be found in them.

    Args:
        name: What the format is to be called.
        shape: What their lines are, `json`, `logfmt` or `text`.
        template: Of the lines, for `text`.
        remark: What is said at its top, one line.
    """
    spots = spots_of(records)
    found = _found(spots, len(records))
    if not found.keys() & {"tool", "timestamp", "method"}:
        return None
    each = found["tool"].inside if "tool" in found else ""
    found = {field: spot for field, spot in found.items() if spot.inside in ("", each)}
    outcome, event = found.get("status"), found.get("event")
    status = _words(outcome, lambda value: outcome_of(outcome.name, value)) if outcome is not None else {}
    kinds = _words(event, kind_of) if event is not None else {}
    if event is not None and not kinds and not any(map(is_known_kind, event.values)):
        del found["event"]
    halves = _halves(spots, found, len(records)) if not each else None
    if halves is not None and halves.said is event and set(kinds.values()) <= {"tool_call"}:
        del found["event"]
        kinds = {}
    took = found.get("duration")
    unit = unit_of(took.name, list(took.values)) if took is not None else "ms"
    lines = [f"# {remark}"] if remark else []
    lines += [
        "# Every line is a guess: check it, put the file into a folder, and see what it reads with",
        "#   mcpwatch inspect --formats FOLDER LOG",
        f"name: {_scalar(name)}",
        *([f"shape: {shape}"] if shape != "json" else []),
        *([f"lines: {{record: {json.dumps(template)}}}"] if template else []),
        "match:",
        *_matched(spots, found, len(records)),
        *([f"each: {_scalar(each)}"] if each else []),
        "fields:",
    ]
    lines += [_field(field, spot, each, unit, len(records)) for field, spot in found.items()]
    if "timestamp" in found and any(map(_has_no_zone, found["timestamp"].values)):
        lines.append(
            "# the times name no zone and are taken for UTC; if they are this machine's: zone: local"
        )
    if took is not None:
        lines += _units(took, unit)
    for section, words in (("kinds", kinds), ("status", status)):
        if words:
            lines += [f"{section}:", *(f"  {_quoted(word)}: {meaning}" for word, meaning in words.items())]
    if halves is not None:
        lines += _paired(halves, told=outcome is not None)
    if outcome is not None and (open_words := _open_words(outcome, status)):
        listed = ", ".join(map(_quoted, open_words))
        lines.append(f"# words for outcomes of which nothing is known, to be put under status: {listed}")
    return "\n".join(lines) + "\n"


def _units(took: Spot, unit: str) -> list[str]:
    """What a duration counts, and whether that is a guess."""
    lines = [f"units: {{duration: {unit}}}"] if unit != "ms" else []
    if not says_its_unit(took.name, list(took.values)):
        lines.append(
            f"# nothing says what {took.name} counts, {unit} is a guess; else: `duration: {took.path}` and "
            "`units: {duration: …}`"
        )
    return lines


def _has_no_zone(value: Any) -> bool:
    time = parse_time(value)
    return time is not None and time[1]


def _found(spots: list[Spot], count: int) -> dict[str, Spot]:
    """The fields, each with its best place; no place is two fields."""
    found: dict[str, Spot] = {}
    answers = [spot for spot in spots if spot.objects and ANSWERS.search(spot.name)]
    arguments = [spot for spot in spots if spot.objects and ARGUMENTS.search(spot.name)]
    tool = _best(
        GUESSES[0], [spot for spot in spots if not _below_any(spot, [*answers, *arguments])], (), count
    )
    params = _params(spots, tool)
    # what stands in the parameters, or in what a tool answers, is no field of the record
    hidden = [*answers, *([params] if params is not None else [])]
    others = [spot for spot in spots if not _below_any(spot, hidden)]
    taken = [spot for spot in (tool, params) if spot is not None]
    for guess in GUESSES[1:]:
        best = _best(guess, others, taken, count)
        if best is not None:
            taken.append(best)
            found[guess.field] = best
    for guess in GUESSES[1:]:  # of an answer only what stands at its top, and only what nothing else tells
        if guess.field in ("status", "error") and guess.field not in found:
            tops = [spot for spot in spots if any(_below(spot, one) and spot.around == (*one.around, one.name)
                                                  for one in answers)]  # fmt: skip
            best = _best(guess, tops, taken, count)
            if best is not None:
                taken.append(best)
                found[guess.field] = best
    named = {"timestamp": None, "ended": None, "tool": tool, "params": params} | found
    if "timestamp" not in found and "ended" in found:
        named["timestamp"] = named.pop("ended")
    return {field: spot for field, spot in named.items() if spot is not None}


def _below(spot: Spot, outer: Spot) -> bool:
    return spot.inside == outer.inside and spot.path.startswith(outer.path + ".")


def _below_any(spot: Spot, outer: Iterable[Spot]) -> bool:
    return any(_below(spot, one) for one in outer)


def _best(guess: Guess, spots: list[Spot], taken: Sequence[Spot], count: int) -> Spot | None:
    ranked = [
        (score, spot) for spot in spots if spot not in taken and (score := _score(guess, spot, count)) > 0
    ]
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else None


def _score(guess: Guess, spot: Spot, count: int) -> float:
    """How well a place fits a field; 0 where it does not."""
    if not spot.values or (guess.words and len(spot.values) > MAX_WORDS):
        return 0
    fitting = sum(1 for value in spot.values if guess.fits(value))
    if fitting < 0.9 * len(spot.values):
        return 0
    called = "_".join((*spot.around[-1:], spot.name))
    points = max(
        (points for words, points in guess.names if re.search(words, spot.name) or re.search(words, called)),
        default=0,
    )
    if not points:
        return 0
    if guess.field == "status" and any(status_of(value) != "unknown" for value in spot.values):
        points += 2
    return points + min(1.0, spot.seen / count) - 0.1 * len(spot.around)


def _params(spots: list[Spot], tool: Spot | None) -> Spot | None:
    """Where the parameters stand: an object that is called so, best beside the tool's name."""
    inside = tool.inside if tool is not None else ""
    fitting = [spot for spot in spots if spot.objects and spot.inside == inside and PARAMS.search(spot.name)]
    # the innermost is the parameters themselves: params of JSON-RPC hold the arguments
    holders = [spot for spot in fitting if tool is not None and _below(tool, spot)]
    rest = [spot for spot in fitting if spot not in holders]
    near = [spot for spot in rest if tool is not None and spot.around == tool.around]
    for group in (near, [spot for spot in rest if any(_below(spot, holder) for holder in holders)], rest):
        if group:
            return max(group, key=lambda spot: spot.seen)
    return None


def _words(spot: Spot, meant: Callable[[Any], str | None]) -> dict[str, str]:
    """What the words of a place are taken for."""
    found = {word_of(value): meaning for value in spot.values if (meaning := meant(value)) is not None}
    return {word: meaning for word, meaning in found.items() if safe(word, 60) == word}


def _open_words(spot: Spot, known: dict[str, str]) -> list[str]:
    """Words for outcomes of which nothing is known."""
    words = (word_of(value) for value in spot.values if status_of(value) == "unknown" and not is_http(value))
    return [
        word for word in words if word not in known and phase_of(word) != "start" and safe(word, 40) == word
    ][:_MAX_OPEN_WORDS]


class _Halves(NamedTuple):
    """Calls that are logged in two lines.

    Attributes:
        said: Where a word says which of the two a line is, and
        phases: which it is, for each word.
        pair: What the two have in common; None where nothing is.
        by_id: It names the call.
    """

    said: Spot
    phases: dict[str, str]
    pair: Spot | None
    by_id: bool


def _halves(spots: list[Spot], found: dict[str, Spot], count: int) -> _Halves | None:
    """How the start and the end of a call are told, where there are both."""
    outer = [spot for spot in spots if not spot.inside and spot.values]
    for said in outer:
        if len(said.values) > MAX_WORDS or not PHASES.search(said.name):
            continue
        phases = _words(said, phase_of)
        if {"start", "end"} <= set(phases.values()):
            always = [spot for spot in outer if spot.seen >= 0.9 * count and spot is not said]
            named = [
                spot for spot in always if IDS.search(spot.name) and 2 in spot.values.values()
                and max(spot.values.values()) <= 2 and spot is not found.get("tool")
            ]  # fmt: skip
            tool = next((spot for spot in always if spot is found.get("tool")), None)
            return _Halves(said, phases, named[0] if named else tool, bool(named))
    return None


def _paired(halves: _Halves, *, told: bool) -> list[str]:
    """The keys that make one call of two lines.

    Args:
        told: Another field says the outcome.
    """
    if halves.pair is None:
        return ["# calls seem to be logged in two lines, start and end, with nothing in common: see `pair`"]
    lines = [
        f"pair: [{_scalar(halves.pair.path)}]" + " " * 8 + "# what the two lines of a call have in common"
    ]
    if not halves.by_id:
        lines.append("pair_by: order")
    lines.append("variants:")
    for word, phase in halves.phases.items():
        outcome = outcome_of_end(word) if phase == "end" and not told else None
        status = f", constants: {{status: {outcome}}}" if outcome is not None else ""
        lines.append(
            f"  - {{when: {{{_scalar(halves.said.path)}: {_quoted(word)}}}, phase: {phase}{status}}}"
        )
    return lines


def _matched(spots: list[Spot], found: dict[str, Spot], count: int) -> list[str]:
    """Conditions that all records of the sample meet and those of other logs don't."""
    always = [spot for spot in spots if not spot.inside and spot.seen >= count]
    lines = []
    for spot in always:
        value = next(iter(spot.values), None)
        if (
            spot.name in SIGNATURES
            and len(spot.values) == 1
            and isinstance(value, str)
            and safe(value, 60) == value
        ):
            lines.append(f"  {_scalar(spot.path)}: {_scalar(value)}")
    by_path = {spot.path: spot for spot in always}
    roots = dict.fromkeys(found[field].root for field in ("tool", *found) if field in found)
    present = [path for path in roots if path in by_path] or list(by_path)
    if not present:  # no name stands in all of them: those with the most telling field
        present = [next(iter(roots))]
    told = [f"  {_scalar(path)}: {{present: true}}" for path in present]
    return [*lines[:_MAX_SIGNED], *told[: _MAX_MATCHED - min(len(lines), _MAX_SIGNED)]]


def _field(field: str, spot: Spot, each: str, unit: str, count: int) -> str:
    path = spot.path if spot.inside or not each else f"^.{spot.path}"
    name = "duration_ms" if field == "duration" and unit == "ms" else field
    said = f"  {name}: {_scalar(path)}"
    share = "" if spot.seen >= count or spot.inside else f", in {spot.seen} of {count}"
    example = _example(spot)
    return f"{said:40}  # {example}{share}" if example or share else said


def _example(spot: Spot) -> str:
    for value in spot.values:
        shown = redact({spot.name: value})
        return str(safe(json.dumps(next(iter(shown.values())), ensure_ascii=False, default=str), _EXAMPLE))
    return "an object"


def _scalar(text: str) -> str:
    """A text as YAML: plain where it is read as text, else in quotes."""
    if re.fullmatch(r"[A-Za-z_][\w.-]*(\[\])?", text, re.ASCII) and text.lower() not in _NO_TEXT:
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    """A printable text in quotes; not in JSON's escapes, which YAML does not know beyond U+FFFF."""
    return json.dumps(text, ensure_ascii=False)


_NO_TEXT: Final = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))
