"""A lockout never falls on an address behind which everybody stands."""

from __future__ import annotations

import pytest

from mcpwatch.policy.edit import Lock
from mcpwatch.policy.model import LockoutRules, Policy
from mcpwatch.response.operator import change_for
from mcpwatch.response.plan import ResponseError, Target

POLICY = Policy(lockout=LockoutRules(trusted_proxies=("10.0.0.5",)))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "10.0.0.5"])
def test_the_address_of_a_proxy_or_of_this_host_is_never_locked_alone(address: str) -> None:
    targets = (Target("source_ip", address),)
    with pytest.raises(ResponseError, match="everybody behind it"):
        change_for("lock", targets, "", now_ns=0, by="me", policy=POLICY)
    both = (Target("key", "key_0001"), *targets)
    assert isinstance(change_for("lock", both, "", now_ns=0, by="me", policy=POLICY), Lock)


@pytest.mark.parametrize("address", ["203.0.113.9", "not an address"])
def test_any_other_address_can_be(address: str) -> None:
    targets = (Target("source_ip", address),)
    assert isinstance(change_for("lock", targets, "", now_ns=0, by="me", policy=POLICY), Lock)
