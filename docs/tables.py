"""Writes the generated parts of the documents: `python -m docs.tables`, or `--check` to only say what is stale.

A generated part stands between `<!-- generated: name -->` and `<!-- end -->`. What it says is read from the tables
and the code that the program itself runs on, so that a document can't tell anything else.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from mcpwatch.cli.exits import Exit
from mcpwatch.cli.options import SETTINGS
from mcpwatch.console.actions import ACTIONS, key_sign
from mcpwatch.console.themes import DERIVED, REQUIRED
from mcpwatch.data import shipped
from mcpwatch.detection.callchecks import BY_OUTCOME
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rule import CHECK_SETTINGS, VALUE_FIELDS, Rule
from mcpwatch.detection.rulefile import shipped as shipped_rules
from mcpwatch.detection.sigma import FIELDS as SIGMA_FIELDS
from mcpwatch.detection.tags import FRAMEWORKS
from mcpwatch.event import OUTCOMES
from mcpwatch.filter import FIELDS
from mcpwatch.formats.fields import ABSENT, ALIASES, EVENT_WORDS, HTTP_STATUS, STATUS_WORDS
from mcpwatch.formats.shipped import shipped_mapping, shipped_mappings
from mcpwatch.incidents.export import checks_of, event_record, incident_record
from mcpwatch.monitor.pipeline import Pipeline, Reading
from mcpwatch.policy.lint import CODES
from mcpwatch.policy.model import Alerts, Key, Lockout, LockoutRules, Policy, Revocation, ToolPolicy
from mcpwatch.policy.paths import judge_path
from mcpwatch.policy.tiers import KNOWN_TOOLS, VERBS
from mcpwatch.policy.urls import judge_url
from mcpwatch.policy.verdict import Finding, Verdict
from mcpwatch.sources.block import Block
from mcpwatch.times import SECOND, format_duration
from tests.faults.matrix import FIGURES
from tests.faults.matrix import ROWS as FAULTS
from tests.formats_table import HEAD as FORMAT_HEAD
from tests.formats_table import rows as format_rows

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
_PART: Final = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

EXITS: Final[dict[Exit, str]] = {
    Exit.DONE: "Done; a change that is already so is also done. After SIGTERM, and for `tail` after SIGINT, "
    "once the summary is out.",
    Exit.FOUND: "With `--fail-on LEVEL`: there are incidents of that level or worse. `policy lint`: advice of high "
    "severity. `rules test`: a case failed, or a rule file can't be used. `rules export`: something could not be "
    "exported. `demo --headless`: the story did not hold.",
    Exit.USAGE: "The command line can't be understood, or its options contradict each other.",
    Exit.UNUSABLE: "A log, a policy, mapping or configuration file is missing, unreadable or invalid.",
    Exit.NOT_APPLIED: "A change of the policy file was not made. Nothing was written.",
    Exit.FAULT: "A fault in mcpwatch itself, told in one line; the report, redacted, is in the state folder under "
    "`crashes`.",
    Exit.INTERRUPTED: "Interrupted by SIGINT (Ctrl-C).",
}

ROOMS: Final[dict[str, str]] = {
    "event": "`AuditEvent`: what every log line becomes, whatever its format",
    "text": "makes untrusted text safe to show; redaction of secrets",
    "data": "finds the shipped rules, themes and sample logs",
    "times": "integer nanoseconds, UTC; reads and writes times and durations",
    "errors": "what an error means to whoever started the program; each room's own derives from one of these",
    "credentials": "the forms of secrets: found, masked, and compared by a keyed fingerprint",
    "documents": "YAML files as trees that know their lines; the policy and rule files are read through it",
    "filter": "the filter language of the console, of `--filter` and of rules",
    "sources": "bytes in: follow a growing log through rotation, read a saved one, standard input",
    "formats": "a raw line becomes an event, and everything else is counted",
    "policy": "the policy file: load, judge one call, advise, and the only code that writes it",
    "detection": "windows, rules and checks: events in, hits out",
    "incidents": "hits become incidents; incidents become JSON and plain lines",
    "response": "what an operator does: plan, diff, apply, and confirm in the log",
    "snapshot": "the immutable picture that the monitor publishes and the console draws",
    "monitor": "wires the rooms in one thread: live, replay, and what the console asks for",
    "console": "the Textual app: draws snapshots, turns keys into named actions",
    "demo": "a small fleet with an attacker in it, and the sample logs",
    "cli": "one module for each command",
    "__main__": "`python -m mcpwatch`",
}

TOOL_KEYS: Final[dict[str, str]] = {
    "enabled": "`false` switches the tool off.",
    "since": "When mcpwatch last switched it. A success once the grace after it is over is an enforcement gap.",
    "allowed_paths": "Folders and files that it may touch. Without the key: any. `[]`: none.",
    "allowed_domains": "Hosts that it may reach. Without the key: any. `[]`: none.",
    "require_scope": "The scope that a caller needs.",
    "require_audit_log": "Report calls whose record is too incomplete to be judged (rule `audit-missing`).",
    "risk": "`high`, `medium` or `low`; comes before `risk_tiers` and the tool's name.",
    "path_params": "Names of the parameters that are paths, where names and values don't tell.",
    "url_params": "Names of the parameters that are URLs.",
    "base_dir": "The folder that relative paths start from.",
    "definition_sha256": "SHA-256 of the tool's definition: `tool-changed` fires where a log shows another.",
}
ALERT_KEYS: Final[dict[str, str]] = {
    "session_calls_per_minute": "More tool calls in 60 s fire `session-rate`; more sessions `session-churn`.",
    "key_requests_per_minute": "More MCP requests of one key in 60 s fire `key-rate`.",
    "auth_failures": "This many authentication failures or more fire `auth-lockout`,",
    "auth_failures_within": "when they lie within this time.",
    "enforcement_grace": "How long a server may take to notice a change of this file. `0` is allowed.",
    "token_lifetime": "Longest time from issue to expiry that a JWT may have.",
    "allowed_lateness": "How far behind the newest records a record may be and still count in windows.",
}
LOCKOUT_KEYS: Final[dict[str, str]] = {
    "enforce": "Whether `tail` writes lockouts itself, as with `--enforce`; else it advises them.",
    "durations": "The ladder: how long the first, second, third … lockout of the same subject within 24 hours "
    "lasts. The last step repeats.",
    "trusted_proxies": "Addresses of your own proxies: they and this host are never locked out by address alone, "
    "and never by mcpwatch itself.",
}
KEY_KEYS: Final[dict[str, str]] = {
    "client": "Which client holds it.",
    "owner": "Who answers for it; shown before it is revoked.",
    "scopes": "Its scopes, used where the log does not tell them.",
    "created": "The day of its creation; `policy lint` reports keys that are due for rotation.",
    "sha256": "Hash of the key. The key itself never stands in the file.",
}
REVOKED_KEYS: Final[dict[str, str]] = {
    **dict.fromkeys(("key", "client", "session", "subject"), "Who: exactly one of the four."),
    "at": "From when on. Required.",
    "by": "Who did it.",
    "reason": "Why.",
    "until": "When it ends by itself; without it, never.",
}
LOCKOUTS_KEYS: Final[dict[str, str]] = {
    "key": "Who: a key,",
    "source_ip": "an address, or with both: that key from that address.",
    "at": "From when on. Required.",
    "until": "When it ends. Required.",
    "rule": "The rule that led to it.",
    "incident": "The incident that led to it.",
}

RULE_KEYS: Final[dict[str, str]] = {
    "title": "What happened, in a few words. Required.",
    "id": "Small letters, digits and `-`; not that of a shipped rule. Required.",
    "level": "`critical`, `high`, `medium` or `low`. Without it the `check` says it for each event.",
    "description": "What it means when the rule fires. Required.",
    "falsepositives": "Harmless things that look the same.",
    "tags": "Entries of the [lists](#tags) below.",
    "references": "Where to read more.",
    "author": "Who wrote the rule.",
    "group-by": "Whom it is about: `principal` (default), or identities of which the first that an event has "
    "counts, such as `[session, [key, client], source_ip]`.",
    "match": "Which events it fires on, in the [filter language](keys.md#filter).",
    "check": "Which events it fires on, by one of the [checks](#checks). With `match`, both must hold.",
    "settings": "Numbers and times for the check.",
    "correlation": "Fires on several events; see [below](#correlation). Then it says what is counted, in place of "
    "`match` and `check`.",
    "exceptions": "Events that the rule is not about; see [below](#exceptions-and-thresholds).",
    "thresholds": "Other limits for some callers or tools; see there.",
    "runbook": "What to do: one to six steps.",
    "tests": "The rule's [cases](#cases). The last key.",
}
CORRELATION_KEYS: Final[dict[str, str]] = {
    "type": "`event_count`, `value_count` or `temporal_ordered`.",
    "match": "Which events are counted,",
    "check": "or what a check must find in them.",
    "steps": "`temporal_ordered`: 2 to 5 of `{match: …}` and `{check: …}`, in their order.",
    "timespan": "How far apart they may be: `60s`, `10m`, at most `1d`; or `alerts.auth_failures_within`.",
    "condition": "`{gt: 5}` is more than five, `{gte: 5}` five or more; up to 1000, or a limit of the policy such as "
    "`alerts.session_calls_per_minute`.",
    "field": "`value_count`: whose different values are counted; of several, each by itself.",
    "same": "`event_count`: `tool`, `params` or both: only calls that are alike in these are counted together.",
    "once-per": "`event_count`: `call` counts a call once that is logged at its start and at its end.",
    "in-one": "`temporal_ordered`: with `call`, one call may be several of the steps.",
    "unit": "What is counted, in words: `calls`.",
}
CASE_KEYS: Final[dict[str, str]] = {
    "name": "What the case shows.",
    "kind": "`positive` fires, `negative` does not, `edge` is exactly at the limit, `evasion` is what somebody would "
    "try so as not to be seen.",
    "policy": "Text of the policy that it is judged by; without it the built-in one.",
    "events": "Records as in the [log schema](log-schema.md), or text: a line as it stands in a log. `at` is seconds "
    "after the start, up to nine decimals; `repeat` and `every` make several.",
    "fires": "Numbers of the events that the rule must fire on, from 1; `all`, or `[]` for none.",
    "level": "What the highest severity of those must be.",
}
MAPPING_KEYS: Final[dict[str, str]] = {
    "name": "What `--format` and `inspect` call it. Without it: the name of the file.",
    "title": "What people call it.",
    "shape": "`json` (default), `text`, `logfmt`, `cef`, `leef`, `accesslog` (combined, uvicorn, nginx's error log) "
    "or `otlp` (spans and log records of OpenTelemetry).",
    "lines": "`text` only: name -> [template](#templates), or a list of them, tried in order. The record gets the "
    "name as `line`.",
    "match": "[Conditions](#conditions) that all records of the format meet, and no others. Without it the format "
    "reads only what `--format` gives it, unless it has `lines`.",
    "each": "A [path](#paths) to a list: one event for each element. Other paths then begin at the element.",
    "fields": "Field -> path, or a list of paths of which the first that holds something counts. Required.",
    "kinds": "Words of the field `event` -> `tool_call`, `request`, `auth`, `session_start` or `session_end`.",
    "status": "Words and codes of the field `status` -> an outcome.",
    "units": "`timestamp`: `s`, `ms`, `us` or `ns`; without it told by size. `duration`: `ns`, `us`, `ms` (default), "
    "`s`, `min` or `h`; text such as `4ms` or `1m2.5s` says its own.",
    "zone": "Of times that say none: `local` or a name such as `Europe/Berlin`. Without it: UTC, and marked.",
    "constants": "Field -> what it is where the record does not say it.",
    "parse": "Path of a text -> [template](#templates), or a list of them. What it takes becomes fields of the "
    "record, which do not replace its own.",
    "variants": "Other ways of reading for some records, [see below](#variants).",
    "pair": "Paths whose values the start and the end of a call have in common, or that differ in name: "
    "`[[id, tool_use_id]]`.",
    "pair_by": "`id` (default): they name the call. `order`: they do not; of several open calls with the same values "
    "the times tell which one ended, or its outcome stays `unknown`.",
    "lacks": "`time`, `tool`, `params`, `client`, `status` or `duration` -> what to switch on so that the product "
    "logs it; `inspect` says it.",
    "settings": "Recommended settings of the product, as Markdown.",
}
VARIANT_KEYS: Final[dict[str, str]] = {
    "when": "[Conditions](#conditions).",
    "fields": "As above; `[]` for none.",
    "constants": "As above; they go before `fields` of the rest of the file.",
    "status": "As above.",
    "kinds": "As above.",
    "ignore": "`true`: no audit record. The line is understood, and gives no event.",
    "phase": "`start` or `end` of a call; needs `pair`.",
}
CONDITION_KEYS: Final[dict[str, str]] = {
    "present": "`true` or `false`: whether something is there. `null`, `-`, `unknown` and the like are nothing.",
    "starts": "A text that begins so; or a list of beginnings.",
    "contains": "A text in which that stands; or a list.",
    "not": "Another value; or none of a list.",
    "kind": "`text`, `number`, `object`, `list` or `bool`.",
}
CHECKS_OF_RULES: Final[dict[str, str]] = {
    "enforcement-gap": "A success that the policy forbids: revoked, locked out, disabled or unlisted tool, scope.",
    "unauthenticated-success": "A success without credentials.",
    "shell-execute": "A shell tool, by its name.",
    "path-outside": "A path outside `allowed_paths`, as written or in another reading that a server may take.",
    "domain-unexpected": "A host outside `allowed_domains`; cloud metadata.",
    "tool-disabled": "A tool that the policy switches off.",
    "tool-unlisted": "A tool that the policy does not list, where it denies those.",
    "scope-missing": "A tool without the scope that it needs.",
    "audit-missing": "A record too incomplete to judge, of a tool with `require_audit_log`.",
    "key-unknown": "A success with a key that the policy does not know.",
    "revoked-attempt": "A revoked caller that was refused.",
    "secret-in-params": "A parameter with the shape of a password, a token or a private key.",
    "policy-tampering": "A write to agent or MCP configuration, shell start files, cron, systemd, policy or log.",
    "audit-gap": "A sequence number that is missing or repeated, or a hash chain that is broken.",
    "token-lifetime": "A JWT that never expires, lives longer than the policy allows, or was accepted after its end.",
    "key-stale": "A key older than its `created` date and `age` allow.",
    "tool-changed": "A tool definition that is not the policy's `definition_sha256`.",
    "hostile-text": "Control codes, text direction marks, or invisible characters.",
    "sensitive-read": "A read of keys, passwords, tokens or other secrets.",
}

PATHS: Final = ("/app/data/", "/app/public/")
PATH_EXAMPLES: Final = (
    "/app/data/report.csv", "/app/data", "/app/data/2026/../x.csv", "/app/data/100%.csv", "report.csv",
    "/app/data-evil/x", "/app/data/../../etc/passwd", "../../etc/passwd", "/app/data/%2e%2e/%2e%2e/etc/passwd",
    "/app/data/..\\..\\etc\\passwd", "~/.ssh/id_rsa", "/app/data/$HOME/x", "/proc/self/root/app/data/x",
)  # fmt: skip
DOMAINS: Final = ("api.openai.com", "*.wikipedia.org", "git.example.com:8443")
URL_EXAMPLES: Final = (
    "https://api.openai.com/v1/models", "https://API.OpenAI.com./v1", "https://en.wikipedia.org/wiki/MCP",
    "https://wikipedia.org/", "https://git.example.com:8443/x", "https://api.openai.com:8443/",
    "https://api.openai.com.evil.com/", "https://evilapi.openai.com/", "https://evil.com\\@api.openai.com/",
    "https://user:pass@api.openai.com/", "ftp://api.openai.com/", "https://api%2Eopenai%2Ecom/",
    "http://169.254.169.254/latest/meta-data/", "http://2130706433/",
)  # fmt: skip

EXAMPLE_LOG: Final = tuple(
    json.dumps(
        {
            "timestamp": f"2026-11-20T08:00:0{second}Z",
            "tool": "file_read",
            "params": {"path": f"/app/data/{second}.csv"},
            "status": "success",
            "duration_ms": 4.2,
            "key_id": "key_0001",
            "session_id": "s1",
        }
    ).encode()
    for second in range(8)
)
"""Eight calls of one session in eight seconds: three more than the default limit."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def code(text: object) -> str:
    """Text as inline code."""
    return f"``{text}``" if "`" in str(text) else f"`{text}`"


def codes(texts: Iterable[object]) -> str:
    """Several of them."""
    return " ".join(code(text) for text in texts)


def _aliases() -> str:
    return table(("field", "is read from, in this order"), ((code(k), codes(v)) for k, v in ALIASES.items()))


def _words(words: Mapping[str, str], head: tuple[str, str]) -> str:
    by_meaning: dict[str, list[str]] = {}
    for word, meaning in words.items():
        by_meaning.setdefault(meaning, []).append(word)
    return table(head, ((code(meaning), codes(found)) for meaning, found in by_meaning.items()))


def _http() -> str:
    rows = [(status, code(outcome)) for status, outcome in HTTP_STATUS.items()]
    return table(
        ("HTTP status", "outcome"), [*rows, ("other 4xx, 5xx", "`error`"), ("2xx, 3xx", "`unknown`")]
    )


def _absent() -> str:
    return " ".join(code(word) for word in sorted(ABSENT) if word) + " and the empty string\n"


def _default(owner: type, name: str) -> str:
    found = {field.name: field for field in dataclasses.fields(owner)}.get(name)
    if found is None or found.default is dataclasses.MISSING or found.default is None:
        return ""
    value = found.default
    if name == "durations":
        return code(f"[{', '.join(map(format_duration, LockoutRules().durations))}]")
    if isinstance(value, int) and value >= SECOND:
        return code(format_duration(value))
    return code(json.dumps(value))


def _keys(owner: type, meanings: Mapping[str, str]) -> Callable[[], str]:
    return lambda: table(
        ("key", "default", "meaning"), ((code(k), _default(owner, k), text) for k, text in meanings.items())
    )


def _verdict(finding: Finding) -> tuple[str, str]:
    return f"**{finding.verdict}**" + (", critical" if finding.critical else ""), finding.reason


def _path_examples() -> str:
    rows = ((code(path), *_verdict(judge_path(path, PATHS))) for path in PATH_EXAMPLES)
    return table(("path", "verdict", "why"), rows)


def _url_examples() -> str:
    rows = ((code(url), *_verdict(judge_url(url, DOMAINS))) for url in URL_EXAMPLES)
    return table(("URL", "verdict", "why"), rows)


def _tiers() -> str:
    rows = []
    for tier in dict.fromkeys(KNOWN_TOOLS.values()):
        tools = [tool for tool, of in KNOWN_TOOLS.items() if of is tier]
        rows.append((tier.value, codes(tools), " ".join(sorted(VERBS.get(tier, ()))) or "anything else"))
    return table(("tier", "known tools", "else, a word of the name"), rows)


def _lint() -> str:
    return table(("code", "finds"), ((code(name), what) for name, what in CODES.items()))


def _severity(rule: Rule) -> str:
    return rule.level.label if rule.level is not None else "by outcome"


def _overview() -> str:
    return table(
        ("rule", "severity", "fires on, by default", "title"),
        (
            (f"[{code(rule.id)}](#{rule.id})", _severity(rule), rule.limit(Alerts()), rule.title)
            for rule in shipped_rules()
        ),
    )


def _rules() -> str:
    return "\n".join(map(_rule, shipped_rules()))


def _rule(rule: Rule) -> str:
    grouped = ", else ".join(" + ".join(name.replace("_", " ") for name in names) for names in rule.group_by)
    counting = rule.correlation
    events = counting.events if counting is not None else (rule.condition,)
    conditions = (
        [f"check {code(each.check)}"] * (each.check is not None)
        + [code(each.match)] * (each.match is not None)
        for each in events
    )
    rows = (
        ("severity", _severity(rule)),
        ("fires on", rule.limit(Alerts())),
        ("events", ", then ".join(" and ".join(parts) for parts in conditions)),
        ("grouped by", grouped),
        ("false alarms", " ".join(rule.falsepositives)),
        ("tags", codes(rule.tags)),
    )
    steps = "".join(f"{number}. {step}\n" for number, step in enumerate(rule.runbook, 1))
    return f"### {rule.id}\n\n**{rule.title}.** {rule.description}\n\n{table(('', ''), rows)}\nWhat to do:\n\n{steps}"


def _key_rows(meanings: Mapping[str, str]) -> Callable[[], str]:
    return lambda: table(("key", "meaning"), ((code(name), text) for name, text in meanings.items()))


def _checks() -> str:
    rows = ((code(name), text, codes(CHECK_SETTINGS.get(name, ()))) for name, text in CHECKS_OF_RULES.items())
    return table(("check", "finds", "settings"), rows)


def _tags() -> str:
    rows = ((code(each.example), each.name, each.version) for each in FRAMEWORKS.values())
    return table(("tag", "list", "version"), rows)


def _sigma_fields() -> str:
    names: dict[tuple[str, str], list[str]] = {}
    for name, pair in SIGMA_FIELDS.items():
        names.setdefault(pair, []).append(name)
    rows = ((code(field), code(key), codes(found)) for (field, key), found in names.items())
    return table(("Sigma field", "key of event lines", "in filters and rules"), rows)


def _by_outcome() -> str:
    columns = sorted(
        OUTCOMES, key=lambda name: (-BY_OUTCOME[Verdict.VIOLATION].get(name, Severity.MEDIUM), name)
    )
    rows = [
        (f"**{verdict}**", *(severities.get(name, Severity.MEDIUM).label for name in columns))
        for verdict, severities in BY_OUTCOME.items()
    ]
    return table(("verdict", *columns), rows)


def _exits() -> str:
    return table(("code", "meaning"), ((value.value, EXITS[value]) for value in Exit))


def _actions() -> str:
    parts = []
    for group in dict.fromkeys(action.group for action in ACTIONS):
        rows = (
            (code(key_sign(action.key)), code(action.id), action.help + _note(action.where))
            for action in ACTIONS
            if action.group == group
        )
        parts.append(f"### {group}\n\n{table(('key', 'action', 'does'), rows)}")
    return "\n".join(parts)


def _note(where: str) -> str:
    return {"both": "", "live": " (live only)", "replay": " (replay only)"}[where]


def _filter_fields() -> str:
    rows = ((code(row.name), row.help, codes(row.examples)) for row in FIELDS.values())
    return table(("field", "compares", "examples"), rows)


def _theme_fields() -> str:
    needed = [(code(name), "required") for name in REQUIRED]
    derived = [(code(name), f"else as {code(source)}") for name, source in DERIVED.items()]
    rest = [
        ("`ansi`", "`true`: the terminal's own colours are used, `ansi_red` and so on; else `false`"),
        ("`variables`", "further colours of Textual by name; else none"),
    ]
    return table(("field", ""), (*needed, *derived, *rest))


def _themes() -> str:
    rows = []
    for path in sorted(shipped("themes").glob("*.yaml")):
        text = path.read_text()
        data = yaml.safe_load(text)
        rows.append(
            (code(data["name"]), "dark" if data["dark"] else "light", text.splitlines()[0].lstrip("# "))
        )
    return table(("theme", "", "what for"), rows)


def _rooms() -> str:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = next(c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    names = [name for layer in reversed(contract["layers"]) for name in layer.split(" : ")]
    return table(("room", "what happens there"), ((code(name), ROOMS[name]) for name in names))


def _example() -> tuple[Pipeline, list[dict[str, Any]]]:
    pipeline = Pipeline(Policy(), Reading())
    batch = pipeline.take(Block("audit.jsonl", list(EXAMPLE_LOG), 0, 1))
    event = batch.events[0]
    checks = checks_of(pipeline.engine.found(event))
    records = [event_record(event, pipeline.engine.what(event).tier, reveal=False, checks=checks)]
    records += [incident_record(incident, pipeline.fold.alerts) for incident in pipeline.fold]
    return pipeline, records


def _json(record: Mapping[str, Any]) -> str:
    body = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
    return f"```json\n{{\n{body}\n}}\n```\n"


def _example_event() -> str:
    return _json(_example()[1][0])


def _example_incident() -> str:
    return _json(_example()[1][1])


def _example_summary() -> str:
    return _json(_example()[0].summary() | {"restrictions": []})


def _faults() -> str:
    kept: dict[str, dict[str, str]] = (
        json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    )
    rows = []
    for name, row in FAULTS.items():
        found = kept.get(name)
        measured = f"{found['figure']} ({found['verdict']}, {found['on']})" if found else "not measured yet"
        rows.append((name, row.fault, row.promise, measured))
    return table(("", "fault", "must hold", "measured"), rows)


def _formats() -> str:
    rows = (
        (code(name), shipped_mapping(name).title, f"{understood} of {lines}", *fields)
        for name, lines, understood, *fields in format_rows()
    )
    return table(("format", "product", "read", *FORMAT_HEAD[3:]), rows)


def _format_settings() -> str:
    return "\n".join(
        f"### {mapping.title}\n\n{mapping.settings}" for mapping in shipped_mappings() if mapping.settings
    )


PARTS: Final[dict[str, Callable[[], str]]] = {
    "aliases": _aliases,
    "status-words": lambda: _words(STATUS_WORDS, ("outcome", "words for it")),
    "event-words": lambda: _words(EVENT_WORDS, ("event", "words for it")),
    "http-status": _http,
    "absent": _absent,
    "tool-keys": _keys(ToolPolicy, TOOL_KEYS),
    "alert-keys": _keys(Alerts, ALERT_KEYS),
    "lockout-keys": _keys(LockoutRules, LOCKOUT_KEYS),
    "key-keys": _keys(Key, KEY_KEYS),
    "revoked-keys": _keys(Revocation, REVOKED_KEYS),
    "lockouts-keys": _keys(Lockout, LOCKOUTS_KEYS),
    "path-examples": _path_examples,
    "url-examples": _url_examples,
    "tiers": _tiers,
    "lint": _lint,
    "rules-overview": _overview,
    "rules": _rules,
    "rule-keys": _key_rows(RULE_KEYS),
    "correlation-keys": _key_rows(CORRELATION_KEYS),
    "case-keys": _key_rows(CASE_KEYS),
    "value-fields": lambda: codes(VALUE_FIELDS) + "\n",
    "formats": _formats,
    "format-settings": _format_settings,
    "mapping-keys": _key_rows(MAPPING_KEYS),
    "variant-keys": _key_rows(VARIANT_KEYS),
    "condition-keys": _key_rows(CONDITION_KEYS),
    "checks": _checks,
    "tags": _tags,
    "sigma-fields": _sigma_fields,
    "by-outcome": _by_outcome,
    "exits": _exits,
    "actions": _actions,
    "filter-fields": _filter_fields,
    "settings": lambda: codes(sorted(SETTINGS)) + "\n",
    "theme-fields": _theme_fields,
    "themes": _themes,
    "rooms": _rooms,
    "faults": _faults,
    "example-event": _example_event,
    "example-incident": _example_incident,
    "example-summary": _example_summary,
}
"""Name of a generated part -> what writes it."""


def render(text: str) -> str:
    """A document with its generated parts made anew."""
    return _PART.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}{found[3]}", text)


def main(arguments: Sequence[str]) -> int:
    """Rewrite every document, or with `--check` only name those that are stale; 1 if there were any to name."""
    stale = []
    for path in sorted(HERE.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        fresh = render(text)
        if fresh == text:
            continue
        stale.append(path.name)
        if "--check" not in arguments:
            path.write_text(fresh, encoding="utf-8")
    verb = "stale" if "--check" in arguments else "written"
    for name in stale:
        print(f"{verb}: docs/{name}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
