"""Runs the cases in a rule's file: the lines of each go the way that the lines of a log go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rule import Case, CaseKind, Rule, RuleSet
from mcpwatch.formats.reader import Reader
from mcpwatch.policy.load import parse as parse_policy
from mcpwatch.policy.model import BUILT_IN, Policy, PolicyError
from mcpwatch.sources.block import Block
from mcpwatch.text import SafeText, safe

SOURCE: Final = "case"
"""Name of the log that the lines of a case are."""

POLICY_PATH: Final = Path("/etc/mcpwatch/policy.yaml")
"""Where the policy of a case lies, so that a case can tamper with it. Nothing is read from there."""

LOG_PATH: Final = "/var/log/mcpwatch/audit.jsonl"
"""Where its log lies, likewise."""

KINDS: Final[tuple[CaseKind, ...]] = get_args(CaseKind)
"""The kinds of cases, all of which a shipped rule has."""

_MOST_NUMBERS: Final = 12


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule did on the lines of a case.

    Attributes:
        fired: Numbers of the lines, from 1, on which it fired, in their order.
        level: The highest severity of its hits; None without a hit.
        problems: Why the case shows nothing, one clause each; empty where it could be run.
    """

    fired: tuple[int, ...] = ()
    level: Severity | None = None
    problems: tuple[SafeText, ...] = ()


def policy_of(case: Case) -> Policy:
    """The policy by which a case is judged.

    Raises:
        PolicyError: Its text is no valid policy.
    """
    if case.policy is None:
        return BUILT_IN
    return replace(parse_policy(case.policy.encode("utf-8", "surrogatepass"), None), path=POLICY_PATH)


def run(rule: Rule, case: Case, policy: Policy | None = None) -> Outcome:
    """Run one case. Never raises: what is wrong with the case is in the outcome's problems.

    Args:
        policy: Judge by this one in place of the case's own.
    """
    try:
        policy = policy_of(case) if policy is None else policy
    except PolicyError as error:
        return Outcome(problems=(safe(f"its policy can't be used: {error}"),))
    reader = Reader(SOURCE, coverage=False)
    events = reader.read(Block(SOURCE, list(case.lines), 0, 1))
    engine = Engine(policy, RuleSet((rule,)), (LOG_PATH,))
    hits = [hit for hit in engine.observe(events) if hit.rule == rule.id]
    # an amendment comes behind the hit that it amends
    levels = {(hit.subject, hit.offset): hit.severity for hit in hits}
    return Outcome(
        fired=tuple(sorted({hit.line for hit in hits if hit.line is not None})),
        level=max(levels.values(), default=None),
        problems=tuple(
            safe(f"line {unread.line} can't be read: {unread.reason}") for unread in reader.examples
        ),
    )


def missing_kinds(rule: Rule) -> tuple[CaseKind, ...]:
    """The kinds of cases that a rule has none of."""
    return tuple(kind for kind in KINDS if all(case.kind != kind for case in rule.tests))


def failures(rule: Rule) -> list[SafeText]:
    """One line for each case of a rule that fails: where it stands, what was expected and what happened.

    The cases are those in `rule.tests`, which a shipped rule has from `rulefile.with_tests`.
    """
    return [
        safe(f"{case.place}: {rule.id}: case '{case.name}' {said}", 600)
        for case in rule.tests
        if (said := wrong(case, run(rule, case))) is not None
    ]


def wrong(case: Case, outcome: Outcome) -> str | None:
    """How an outcome differs from what the case says; None where it does not."""
    if outcome.problems:
        return "; ".join(outcome.problems[:3])
    if outcome.fired != case.fires:
        return f"expected it to fire on {_numbers(case.fires)}, and it fired on {_numbers(outcome.fired)}"
    if case.level is not None and outcome.level is not case.level:
        found = "nothing" if outcome.level is None else outcome.level.label
        return f"expected level {case.level.label}, and it was {found}"
    return None


def _numbers(lines: Iterable[int]) -> str:
    """Numbers of lines in words: `no line`, `line 6`, `lines 6, 7`."""
    found = [str(line) for line in lines]
    if not found:
        return "no line"
    shown = ", ".join(found[:_MOST_NUMBERS])
    more = f" and {len(found) - _MOST_NUMBERS} more" if len(found) > _MOST_NUMBERS else ""
    return f"line{'s' if len(found) > 1 else ''} {shown}{more}"
