"""What a rule is: shipped and own ones alike are files of one form (docs/rules.md), read by `rulefile.py`.

A rule without a correlation judges each event by itself. One with a correlation looks at several events of one
subject within a timespan: how many there are (`event_count`), how many different values they have (`value_count`),
or whether they come one after the other (`temporal_ordered`). The names are Sigma's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

from mcpwatch.detection.hit import Severity
from mcpwatch.detection.principal import PRINCIPAL, Grouping
from mcpwatch.documents.tree import DocumentError
from mcpwatch.filter import Filter
from mcpwatch.policy.model import Alerts
from mcpwatch.text import SafeText
from mcpwatch.times import MINUTE, SECOND, format_duration

CorrelationType = Literal["event_count", "value_count", "temporal_ordered"]
CaseKind = Literal["positive", "negative", "edge", "evasion"]

VALUE_FIELDS: Final = ("session", "key", "client", "subject", "source_ip", "network", "tool")
"""What a `value_count` can count. `network` is the /24 of an IPv4 address, the /48 of an IPv6 one."""

SAME_FIELDS: Final = ("tool", "params")
"""What events can be required to have in common to be counted together."""


CHECK_NAMES: Final = (
    "enforcement-gap",
    "unauthenticated-success",
    "shell-execute",
    "path-outside",
    "domain-unexpected",
    "tool-disabled",
    "tool-unlisted",
    "scope-missing",
    "audit-missing",
    "key-unknown",
    "revoked-attempt",
    "secret-in-params",
    "policy-tampering",
    "audit-gap",
    "token-lifetime",
    "key-stale",
    "tool-changed",
    "hostile-text",
    "sensitive-read",
)
"""What code finds in an event and a rule can name as its `check`."""

CHECK_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"token-lifetime": ("leeway",), "key-stale": ("age",)}
)
"""Names of the settings that a check takes, for those that take any."""

_NOWHERE: Final = SafeText("")


class RuleError(DocumentError):
    """A rule file can't be used. The message says which file and line, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Which events count. Where both are given both must hold; with neither every event does.

    Attributes:
        check: Name of something that code finds in an event and no filter can say (`CHECK_NAMES`).
    """

    match: Filter | None = None
    check: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A number or a time, given by the rule or by the policy.

    Attributes:
        value: Events, values or ns.
        setting: Name of a field of the policy's `alerts`, which then says it.
    """

    value: int = 0
    setting: str | None = None

    def of(self, alerts: Alerts) -> int:
        """What it is under a policy."""
        return self.value if self.setting is None else int(getattr(alerts, self.setting))


@dataclass(frozen=True, slots=True)
class Correlation:
    """What several events of one subject must be like.

    Attributes:
        events: Which events enter: one condition, or the steps of a `temporal_ordered` in their order.
        timespan: W, in ns: a half-open window (t-W, t].
        op: `gt` fires on more than `limit`, `gte` on as many.
        fields: For `value_count`, of `VALUE_FIELDS`: each is counted by itself.
        same: Of `SAME_FIELDS`: only events alike in these are counted together.
        once_per_call: Count a call once that is logged more than once.
        in_one_call: For `temporal_ordered`: one event may be several of the steps.
        unit: What is counted, in words: `calls`.
    """

    type: CorrelationType
    events: tuple[Condition, ...]
    timespan: Limit
    op: Literal["gt", "gte"] = "gt"
    limit: Limit = Limit()
    fields: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    once_per_call: bool = False
    in_one_call: bool = False
    unit: str = "events"

    def need(self, alerts: Alerts, limit: int | None = None) -> int:
        """How many in one window fire; under another limit where one is given."""
        return (self.limit.of(alerts) if limit is None else limit) + (self.op == "gt")

    def words(self, alerts: Alerts, limit: int | None = None) -> str:
        """The limit in words: `more than 5 calls in 60 s`."""
        width = self.timespan.of(alerts)
        span = f"{width // SECOND} s" if width == MINUTE else format_duration(width)
        if self.type == "temporal_ordered":
            return f"{len(self.events)} steps in order within {span}"
        count = self.limit.of(alerts) if limit is None else limit
        least = f"more than {count}" if self.op == "gt" else f"{count} or more"
        return f"{least} {self.unit} in {span}"


@dataclass(frozen=True, slots=True)
class RuleException:
    """Events that a rule is not about, because somebody said so.

    Attributes:
        fields: What such an event looks like.
        until: It holds for events before this time, ns; None is for good.
        place: File and line, for messages.
    """

    fields: Filter
    author: str
    reason: str
    until: int | None
    place: SafeText


@dataclass(frozen=True, slots=True)
class Threshold:
    """Another limit of a counting rule, for some callers or tools. The first that fits an event is its limit.

    Attributes:
        fields: Names nothing but caller and kind of event, so that all events of one caller and tool have one limit.
    """

    fields: Filter
    limit: int
    author: str
    reason: str
    place: SafeText


@dataclass(frozen=True, slots=True)
class Case:
    """One test of a rule, as it stands in the rule's file.

    Attributes:
        policy: Text of a policy file; None is the built-in policy.
        lines: Lines of a log in the native schema.
        fires: Numbers of the lines, from 1, on which the rule must fire; on no other.
        level: What the highest severity of those hits must be, if that is said.
    """

    name: str
    kind: CaseKind
    policy: str | None
    lines: tuple[bytes, ...]
    fires: tuple[int, ...]
    level: Severity | None
    place: SafeText


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        level: Severity of its hits; None where the check says it for each event.
        group_by: Whom it is about.
        condition: Which events it fires on; for one with a correlation that says which, everything.
        settings: Numbers and times (ns) that its check takes, by name.
        description: What it means when it fires, in one or two sentences.
        falsepositives: What harmless things look the same.
        runbook: What to do, three to six steps.
        shipped: Comes with mcpwatch.
        tests: Its cases; not read until they are wanted (`rulefile.with_tests`).
        place: File, for messages.
    """

    id: str
    title: str
    level: Severity | None
    description: str
    group_by: Grouping = PRINCIPAL
    condition: Condition = Condition()
    correlation: Correlation | None = None
    settings: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    falsepositives: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    author: str | None = None
    runbook: tuple[str, ...] = ()
    exceptions: tuple[RuleException, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    shipped: bool = False
    tests: tuple[Case, ...] = ()
    place: SafeText = _NOWHERE

    def limit(self, alerts: Alerts) -> str:
        """The limit in words."""
        return self.correlation.words(alerts) if self.correlation is not None else "each such event"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of a run, in the order in which they are listed: the shipped ones first.

    Attributes:
        problems: What of the files can't be used, and what is over: one line each, with file and line.
        disabled: Rules that are switched off, one line each: which, where and why.
        off: Those rules, in the same order.
    """

    rules: tuple[Rule, ...]
    problems: tuple[SafeText, ...] = ()
    disabled: tuple[SafeText, ...] = ()
    off: tuple[Rule, ...] = ()

    @property
    def by_id(self) -> dict[str, Rule]:
        """The rules by their ids."""
        return {rule.id: rule for rule in self.rules}

    def only(self, *ids: str) -> RuleSet:
        """A set of some of the rules."""
        return replace(self, rules=tuple(rule for rule in self.rules if rule.id in ids))

    def __iter__(self) -> Iterator[Rule]:
        """The rules in their order."""
        return iter(self.rules)
