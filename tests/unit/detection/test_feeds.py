"""Ways into the windows: whose limit holds, what is the same call, what is one network."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.detection.engine import Engine
from mcpwatch.detection.feeds import network_of
from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.detection.rule import Rule, RuleSet
from mcpwatch.detection.rulefile import parse, shipped
from mcpwatch.policy.model import Policy
from tests.oracle import read

START = 1_795_132_800


def rule(text: str) -> RuleSet:
    found = parse(f"title: t\nid: own\nlevel: low\ndescription: d\n{text}".encode(), "own.yaml")
    assert isinstance(found, Rule)
    return RuleSet((found,))


def calls(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"timestamp": START + n, "tool": "echo", "session_id": "s", "params": {}} | fields
        for n in range(count)
    ]


def hits_of(rules: RuleSet, records: list[dict[str, Any]]) -> list[Hit]:
    return Engine(Policy(), rules).observe(read(records))


COUNTING = """\
group-by: [session]
correlation: {type: event_count, match: 'kind:tool_call', timespan: 60s, condition: {gt: 2}}
"""


def with_limits(*limits: str) -> RuleSet:
    rows = "".join(f"- {{fields: {fields}, author: ann, reason: agreed}}\n" for fields in limits)
    return rule(COUNTING + "thresholds:\n" + rows)


class TestOwnLimits:
    """A limit that somebody set for some callers or tools."""

    def peaks(self, rules: RuleSet, records: list[dict[str, Any]]) -> list[tuple[int, int | None]]:
        return [(hit.peak, hit.limit) for hit in hits_of(rules, records)]

    @pytest.mark.parametrize(
        "fields",
        ["{client: ci}, gt: 4", "{tool: e*}, gt: 4", "{status: error}, gt: 4", "{kind: tool_call}, gt: 4"],
    )
    def test_it_holds_for_those_it_names_and_is_said_in_the_hit(self, fields: str) -> None:
        records = calls(6, client_id="ci", status="error")
        assert self.peaks(with_limits(fields), records) == [(5, 4), (6, 4)]

    @pytest.mark.parametrize(
        ("fields", "differs"),
        [
            ("{client: ci}, gt: 4", {"client_id": "other"}),
            ("{status: error}, gt: 4", {"status": "denied"}),
            ("{tool: echo}, gt: 4", {"tool": "ping"}),
            ("{tier: low}, gt: 4", {"tool": "delete_all"}),
        ],
    )
    def test_others_in_the_same_window_keep_the_rules_limit(
        self, fields: str, differs: dict[str, str]
    ) -> None:
        """All events count together; each is held against its own limit."""
        mine = calls(1, client_id="ci", status="error")
        other = calls(1, **({"client_id": "ci", "status": "error"} | differs))
        found = self.peaks(with_limits(fields), [*mine * 3, *other, *mine, *other])
        assert found == [(4, None), (5, 4), (6, None)]

    def test_the_first_that_fits_holds(self) -> None:
        rules = with_limits("{client: ci}, gt: 4", "{client: c*}, gt: 1")
        assert self.peaks(rules, calls(6, client_id="ci")) == [(5, 4), (6, 4)]
        assert self.peaks(rules, calls(3, client_id="cd")) == [(2, 1), (3, 1)]
        assert self.peaks(rules, calls(3, client_id="x")) == [(3, None)]

    def test_a_lower_limit_than_the_rules_fires_earlier(self) -> None:
        assert self.peaks(with_limits("{client: ci}, gt: 1"), calls(2, client_id="ci")) == [(2, 1)]


class TestExceptions:
    """Events that a rule is not about."""

    @pytest.mark.parametrize(
        ("fields", "count"),
        [
            ("{client: ci}", 0),
            ("{tool: ech?}", 0),
            ("{param: quiet}", 0),
            ("{client: other}", 3),
            ("{call: c}", 3),
        ],
    )
    def test_they_enter_no_window(self, fields: str, count: int) -> None:
        rules = rule(COUNTING + f"exceptions: [{{fields: {fields}, author: ann, reason: known}}]")
        assert len(hits_of(rules, calls(5, client_id="ci", params={"x": "quiet please"}))) == count

    def test_they_hold_until_the_end_of_their_last_day(self) -> None:
        """The log begins on 2026-11-20: what counts is the time of the event."""
        for day, count in (("2026-11-19", 3), ("2026-11-20", 0)):
            excepted = f"exceptions: [{{fields: {{client: ci}}, author: ann, reason: known, expires: {day}}}]"
            assert len(hits_of(rule(COUNTING + excepted), calls(5, client_id="ci"))) == count

    def test_a_rule_that_counts_nothing_has_them_too(self) -> None:
        text = "match: 'tool:echo'\nexceptions: [{fields: {client: ci}, author: ann, reason: known}]"
        assert [hit.line for hit in hits_of(rule(text), [*calls(1), *calls(1, client_id="ci")])] == [1]


LOOP = shipped().only("runaway-loop")


class TestTheSameCall:
    """When two calls are the same for `same: [tool, params]`."""

    def loops(self, *params: object) -> int:
        """Hits on 21 calls that have these parameters in turn."""
        records = calls(21)
        for number, record in enumerate(records):
            record["params"] = params[number % len(params)]
        return len(hits_of(LOOP, records))

    @pytest.mark.parametrize(
        "params",
        [
            {}, {"a": 1}, {"a": [1, {"b": None}]}, {"a": "\ud800"}, {"a": 2**70}, {"a": "x" * 10_000}, {"a": 1e300},
        ],
    )  # fmt: skip
    def test_equal_parameters_are(self, params: dict[str, Any]) -> None:
        assert self.loops(params) == 1

    def test_the_order_of_names_does_not_matter(self) -> None:
        assert self.loops({"a": 1, "b": [2, {"c": 3, "d": 4}]}, {"b": [2, {"d": 4, "c": 3}], "a": 1}) == 1

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"a": 1}, {"a": 2}), ({"a": -1}, {"a": -2}), ({"a": 1}, {"a": True}), ({"a": 0}, {"a": 2**61 - 1}),
            ({"a": 1}, {"a": "1"}), ({"a": 1}, {"b": 1}), ({"a": [1, 2]}, {"a": [2, 1]}), ({}, {"a": None}),
            ({"a": "\ud800"}, {"a": "\ud801"}), ({"a": 2**70}, {"a": 2**71}),
        ],
    )  # fmt: skip
    def test_different_ones_are_not(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        assert self.loops(one, other) == 0

    @pytest.mark.parametrize("params", [None, {"a": "[redacted]"}, {"a": "***"}])
    def test_nobody_knows_of_parameters_that_are_not_in_the_log(self, params: object) -> None:
        assert self.loops(params) == 0

    @pytest.mark.parametrize("depth", [100, 250, 300, 900])
    def test_deep_ones_end_nothing(self, depth: int) -> None:
        deep: Any = 1
        for _ in range(depth):
            deep = [deep]
        assert self.loops({"a": deep}) in (0, 1)

    def test_other_tools_and_other_sessions_are_other_calls(self) -> None:
        assert hits_of(LOOP, [*calls(20), *calls(20, tool="ping"), *calls(20, session_id="t")]) == []

    def test_a_call_that_is_logged_twice_is_one(self) -> None:
        twice = [record | {"call_id": f"c{n}"} for n, record in enumerate(calls(20)) for _ in range(2)]
        assert hits_of(LOOP, twice) == []
        (hit,) = hits_of(LOOP, [*twice, *calls(1)])
        assert (hit.peak, hit.severity) == (21, Severity.MEDIUM)

    @pytest.mark.parametrize("absent", ["-", "", "unknown"])
    def test_absent_call_ids_make_no_two_calls_one(self, absent: str) -> None:
        assert len(hits_of(LOOP, calls(21, call_id=absent))) == 1


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"), ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("[2001:db8:1:2::3]", "2001:db8:1::/48"),
        ("2001:db8:1:ffff::", "2001:db8:1::/48"), ("fe80::1%eth0", "fe80::/48"), ("gateway", "gateway"), ("", ""),
    ],
)  # fmt: skip
def test_networks(address: str, network: str) -> None:
    assert network_of(address) == network


@given(st.text(max_size=600) | st.ip_addresses().map(str))
def test_every_address_has_a_network_and_those_nearby_the_same(address: str) -> None:
    network = network_of(address)
    assert len(network) <= 256
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return
    mapped = getattr(found, "ipv4_mapped", None) or found
    assert mapped in ipaddress.ip_network(network)
