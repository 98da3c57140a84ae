"""The documents tell the truth: what they show is what the program does."""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mcpwatch.cli.commands import cli
from mcpwatch.console.actions import resolve_keys
from mcpwatch.console.themes import load_theme
from mcpwatch.detection.rule import CHECK_NAMES, Rule, RuleError
from mcpwatch.detection.rulefile import parse as parse_rule
from mcpwatch.detection.rulefile import shipped
from mcpwatch.detection.trial import failures, missing_kinds
from mcpwatch.detection.tuning import Tuning, tuned
from mcpwatch.detection.windows import CountWindow
from mcpwatch.formats.mapping import Mapping
from mcpwatch.formats.mappingfile import load_mapping
from mcpwatch.formats.reader import Reader
from mcpwatch.policy.lint import lint
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import Alerts, PolicyError
from mcpwatch.sources.block import Block
from mcpwatch.times import SECOND

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Example:
    """One block of code of a document."""

    document: Path
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.name}-{self.number}"


def _examples() -> Iterator[Example]:
    for document in DOCUMENTS:
        for number, found in enumerate(_FENCE.finditer(document.read_text()), 1):
            yield Example(document, number, found[1], found[2])


def _in(*languages: str) -> list[Example]:
    return [example for example in EXAMPLES if example.language in languages]


def _kind(example: Example) -> str:
    """What a YAML example is, by a key that only such files have; else it is a policy."""
    keys = yaml.safe_load(example.text).keys()
    marks = {"primary": "theme", "fields": "mapping", "title": "rule", "tune": "tuning"}
    return next((kind for key, kind in marks.items() if key in keys), "policy")


EXAMPLES = list(_examples())
YAML = [(example, _kind(example)) for example in _in("yaml")]


def _of(kind: str) -> list[Example]:
    return [example for example, found in YAML if found == kind]


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    text = (ROOT / "docs" / document).read_text().split(f"\n{heading}\n", 1)[1]
    lines = text[text.index("\n| ") + 1 :].split("\n\n")[0].split("\n<!--")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def _names(document: str, heading: str) -> set[str]:
    return {name for row in _rows(document, heading) for name in re.findall(r"`(\w+)`", row[0])}


def test_generated_parts_are_what_the_tables_say() -> None:
    """Whoever changes a table also runs `python -m docs.tables`."""
    done = subprocess.run(
        [sys.executable, "-m", "docs.tables", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_marker_of_a_generated_part_is_closed() -> None:
    """A part that is opened and not closed would never be written, and never be stale."""
    for document in DOCUMENTS:
        marks = re.findall(r"^.*<!-- (generated|end)\b.*-->$", document.read_text(), re.MULTILINE)
        if document.parent.name == "docs":
            assert marks == ["generated", "end"] * (len(marks) // 2), document.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_inside_the_repository_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", document.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("example", _of("policy"), ids=str)
def test_policy_examples_load(example: Example) -> None:
    """Fragments too, once they have a version."""
    text = example.text if "version:" in example.text else f"version: 1\n{example.text}"
    parse(text.encode(), None)


def test_the_complete_policy_example_gets_no_advice_and_has_every_section() -> None:
    [text] = [example.text for example in _of("policy") if "version:" in example.text]
    assert lint(text.encode(), None, today=date(2026, 11, 22)) == []
    assert yaml.safe_load(text).keys() == _known_keys("{}: 1")


def _known_keys(place: str) -> set[str]:
    """The keys that the loader itself says are known in a place."""
    with pytest.raises(PolicyError) as raised:
        parse(f"version: 1\n{place.format('zzzzzz')}\n".encode(), None)
    return set(str(raised.value).partition("known are ")[2].split(", "))


@pytest.mark.parametrize(
    ("heading", "place"),
    [
        ("## Every key", "{}: 1"),
        ("### tools", "tools: {{t: {{{}: 1}}}}"),
        ("### alerts", "alerts: {{{}: 1}}"),
        ("### lockout", "lockout: {{{}: 1}}"),
        ("### keys", "keys: {{k: {{{}: 1}}}}"),
        ("### revoked", "revoked: [{{{}: 1}}]"),
        ("### lockouts", "lockouts: [{{{}: 1}}]"),
    ],
)
def test_every_key_of_the_policy_file_is_documented_and_no_other(heading: str, place: str) -> None:
    documented = {row[0].strip("`") for row in _rows("policy-file.md", heading)}
    assert documented == _known_keys(place)


@pytest.mark.parametrize("example", _of("rule"), ids=str)
def test_rule_examples_load_and_their_cases_hold(example: Example) -> None:
    rule = parse_rule(example.text.encode(), str(example))
    assert isinstance(rule, Rule)
    assert failures(rule) == []
    assert not rule.tests or missing_kinds(rule) == ()


def test_there_is_an_example_of_every_type_of_rule() -> None:
    rules = [parse_rule(example.text.encode(), str(example)) for example in _of("rule")]
    types = {rule.correlation and rule.correlation.type for rule in rules if isinstance(rule, Rule)}
    assert types == {None, "event_count", "value_count", "temporal_ordered"}


@pytest.mark.parametrize("example", _of("tuning"), ids=str)
def test_tuning_examples_fit_the_rule_that_they_name(example: Example) -> None:
    tuning = parse_rule(example.text.encode(), str(example))
    assert isinstance(tuning, Tuning)
    assert tuned(shipped().by_id[tuning.rule], tuning) != shipped().by_id[tuning.rule] or not tuning.enabled


_A_RULE = "title: x\nid: x\ndescription: x\nlevel: low\nmatch: tool:a\n"


@pytest.mark.parametrize(
    ("heading", "place"),
    [
        ("### Keys of a rule file", "zzzzzz: 1"),
        ("### correlation", "correlation: {zzzzzz: 1}"),
        ("## Cases", "tests: [{zzzzzz: 1}]"),
    ],
)
def test_every_key_of_a_rule_file_is_documented_and_no_other(heading: str, place: str) -> None:
    with pytest.raises(RuleError) as raised:
        parse_rule(f"{_A_RULE}{place}\n".encode(), "x")
    known = set(str(raised.value).partition("known are ")[2].split(", "))
    assert {row[0].strip("`") for row in _rows("rules.md", heading)} == known


def test_every_check_is_documented_and_no_other() -> None:
    assert [row[0].strip("`") for row in _rows("rules.md", "## Checks")] == list(CHECK_NAMES)


def test_every_shipped_rule_is_documented() -> None:
    text = (ROOT / "docs" / "rules.md").read_text()
    ids = [rule.id for rule in shipped()]
    assert re.findall(r"^\| \[`([a-z-]+)`\]", text, re.MULTILINE) == ids
    assert re.findall(r"^### ([a-z-]+)$", text.split("## Every rule")[1], re.MULTILINE) == ids


def _mappings(folder: Path) -> list[Mapping]:
    found = []
    for example in _of("mapping"):
        path = folder / f"{example}.yaml"
        path.write_text(example.text)
        found.append(load_mapping(path))
    return found


def _lines(example: Example) -> list[dict[str, Any]]:
    """The JSON objects of an example: one for each line, or one in several."""
    try:
        return [json.loads(example.text)]
    except ValueError:
        return [json.loads(line) for line in example.text.splitlines()]


@pytest.mark.parametrize("example", _in("json"), ids=str)
def test_json_examples_are_json_and_records_are_understood(example: Example, tmp_path: Path) -> None:
    """What is no output of mcpwatch is a record of a log, with a time, and is understood."""
    lines = [
        json.dumps(line).encode() for line in _lines(example) if "schema" not in line and "type" not in line
    ]
    if lines:
        reader = Reader("docs", mappings=_mappings(tmp_path))
        events = reader.read(Block("docs", lines, 0, 1))
        assert (reader.understood, reader.not_understood) == (len(lines), 0)
        assert all(event.time_ns is not None and event.status != "unknown" for event in events)


def test_the_first_record_of_the_schema_is_native_and_shows_every_field() -> None:
    record = _lines(next(e for e in EXAMPLES if e.document.name == "log-schema.md" and e.language == "json"))[
        0
    ]
    reader = Reader("docs", format_name="native")
    reader.read(Block("docs", [json.dumps(record).encode()], 0, 1))
    assert reader.formats["native"] == 1
    documented = _names("log-schema.md", "## The native record")
    assert documented - record.keys() == {"error"}
    assert record.keys() <= documented


@pytest.mark.parametrize("example", _of("theme"), ids=str)
def test_theme_examples_load(example: Example, tmp_path: Path) -> None:
    path = tmp_path / "theme.yaml"
    path.write_text(example.text)
    load_theme(path)


@pytest.mark.parametrize("example", _in("toml"), ids=str)
def test_configuration_examples_are_taken_as_they_are(example: Example, tmp_path: Path) -> None:
    """Every setting is known to the program, and the console can use every key."""
    assert resolve_keys(tomllib.loads(example.text).get("keys", {}))[1] == []
    (tmp_path / "mcpwatch").mkdir()
    (tmp_path / "mcpwatch" / "config.toml").write_text(example.text)
    done = subprocess.run(
        [sys.executable, "-m", "mcpwatch", "replay", ROOT / "sample_logs" / "demo-incident.jsonl", "--plain"],
        cwd=tmp_path,
        env={"XDG_CONFIG_HOME": str(tmp_path), "MCPWATCH_POLICY": str(ROOT / "sample_logs" / "policy.yaml")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _commands() -> Iterator[tuple[str, list[str]]]:
    for example in _in("sh", "bash", "shell", "console"):
        for line in example.text.replace("\\\n", " ").splitlines():
            words = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            words.whitespace_split = True
            command: list[str] = []
            for word in [*words, ";"]:
                if word in ("|", "||", "&&", ";", "&", ">", ">>", "<"):
                    if command[:1] == ["mcpwatch"]:
                        yield f"{example}: {line}", command[1:]
                    command = []
                else:
                    command.append(word)


@pytest.mark.parametrize(
    "arguments", [pytest.param(arguments, id=name) for name, arguments in dict(_commands()).items()]
)
def test_command_lines_are_accepted_by_the_parser(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands exist, options are spelled right, and what is required is there."""
    for name in [name for name in os.environ if name.startswith("MCPWATCH_")]:
        monkeypatch.delenv(name)
    command: click.Command = cli
    context = click.Context(cli, info_name="mcpwatch")
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        assert found is not None, f"there is no command {rest[0]!r}"
        command, rest = found, rest[1:]
    try:
        command.make_context(command.name, rest)
    except click.exceptions.Exit:
        pass  # --help and --version end here
    except click.UsageError as error:
        pytest.fail(error.format_message())


@pytest.mark.parametrize("example", _in("python"), ids=str)
def test_python_examples_give_what_they_say(example: Example) -> None:
    test = doctest.DocTestParser().get_doctest(example.text, {}, str(example), None, None)
    assert test.examples
    said: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=said.append).failed == 0, "".join(said)


def _times(text: str) -> list[float]:
    every = re.fullmatch(r"every ([\d.]+) s for (\d+) min", text)
    if every is None:
        return [float(word) for word in text.split()]
    step, end = float(every[1]), float(every[2]) * 60
    return [number * step for number in range(int(end / step) + 1)]


def _fires(text: str, events: int) -> set[int]:
    numbers = [int(number) for number in re.findall(r"(\d+)(?:st|nd|rd|th)", text)]
    return set(range(numbers[0], events + 1)) if text.startswith("from") else set(numbers)


@pytest.mark.parametrize(
    "row", _rows("windows-and-incidents.md", "## When a window rule fires"), ids=" ".join
)
def test_windows_fire_as_the_table_says(row: list[str]) -> None:
    rule, times, fires = row
    counting, alerts = shipped().by_id[rule].correlation, Alerts()
    assert counting is not None
    width = counting.timespan.of(alerts)
    window = CountWindow(counting.need(alerts), width, width + alerts.allowed_lateness)
    found = _times(times)
    fired = {n for n, time in enumerate(found, 1) if window.add(round(time * 1000) * SECOND // 1000)}
    assert fired == _fires(fires, len(found))


def test_json_keys_are_documented_and_no_others() -> None:
    """By what a real replay with events prints."""
    log, policy = ROOT / "sample_logs" / "demo-incident.jsonl", ROOT / "sample_logs" / "policy.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "mcpwatch", "replay", log, "--policy", policy, "--json", "--events"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    seen: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        seen.setdefault(record["type"], set()).update(record)
    seldom = {
        "incident": {"count_since", "change"},
        "event": {"subject", "error"},
        "summary": {"sessions_estimated", "evictions", "incidents_out_of_sight"},
    }
    for kind, allowed in seldom.items():
        documented = _names("json-output.md", f"## {kind.capitalize()}")
        assert seen[kind] <= documented, kind
        assert documented - seen[kind] <= allowed, kind


def test_files_named_in_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:\w+/)+(?:\w+\.py)?|\w+\.py)`", text)) - {"mcpwatch/"}
    missing = [
        name for name in named if not any((base / name).exists() for base in (ROOT / "mcpwatch", ROOT))
    ]
    assert len(named) > 20
    assert missing == []
