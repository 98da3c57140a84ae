"""The demo's policy file is one that a careful team could have, with a few things left to find."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from mcpwatch.demo.cast import CLIENTS, STOLEN_KEY
from mcpwatch.demo.policy import CALLS_PER_MINUTE, write_policy
from mcpwatch.policy.edit import Revoke, plan
from mcpwatch.policy.lint import lint
from mcpwatch.policy.load import load
from mcpwatch.times import SECOND

NOW = 1_795_317_247 * SECOND
TODAY = date(2026, 11, 22)


def test_it_is_valid_and_knows_nine_keys_and_one_old_revocation(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    write_policy(path, NOW)
    policy = load(path)
    assert list(policy.keys) == [f"key_000{number}" for number in range(1, 10)]
    assert all(key.owner and key.client and key.created for key in policy.keys.values())
    assert [(entry.id, entry.at < NOW) for entry in policy.revoked] == [("key_0009", True)]
    assert policy.deny_unlisted
    assert policy.alerts.session_calls_per_minute == CALLS_PER_MINUTE


def test_lint_finds_the_shell_and_one_key_older_than_90_days(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    write_policy(path, NOW)
    advice = lint(path.read_bytes(), path, today=TODAY)
    assert [item.code for item in advice] == ["shell-enabled", "old-key"]
    assert "key_0008" in advice[1].message


def test_the_clients_are_those_of_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    write_policy(path, NOW)
    keys = load(path).keys
    assert {client.caller.key: client.caller.client for client in CLIENTS} == {
        name: key.client for name, key in keys.items() if name <= "key_0006"
    }
    assert STOLEN_KEY in keys


def test_a_revocation_changes_one_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    write_policy(path, NOW)
    edit = plan(path.read_bytes(), Revoke("key", STOLEN_KEY, NOW, "alice", "stolen"), path.name)
    changed = [line for line in edit.diff.splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert len(changed) == 1
    assert STOLEN_KEY in changed[0]
