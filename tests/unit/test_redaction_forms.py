"""Secrets where programs and records usually put them, and ids that are secrets themselves."""

from __future__ import annotations

import time

import pytest

from mcpwatch.text import REDACTED, mask_secrets, redact, redact_text, safe_id

KEY = "ghp_16C7e42F292c6912E7710c838347Ae178B4c"


@pytest.mark.parametrize("command", [
    "sshpass -phunter22 ssh root@db", "sshpass -p hunter22 ssh root@db", "7z x -phunter22 a.7z",
    "unzip -P hunter22 a.zip", "curl -s -u bob:hunter22 http://x/", "curl --user 'bob:hunter22' http://x/",
    "redis-cli -h db -a hunter22 ping", "docker login -u bob -p hunter22 reg.example", "ldapsearch -x -w hunter22",
    "mysqldump -uroot -phunter22 shop", "X=1; /usr/bin/mysql -phunter22",
])  # fmt: skip
def test_a_password_behind_a_short_option_is_hidden(command: str) -> None:
    hidden = redact_text(command)
    assert "hunter22" not in hidden
    assert hidden.split()[0] == command.split()[0]
    assert redact_text(hidden) == hidden


@pytest.mark.parametrize("command", [
    "cp -p a b", "mkdir -p /srv/data", "curl -u bob http://x/", "rar a -r x", "grep -w word file",
    "tar -a -cf x.tar y", "docker run -p 8080:80 web", "ssh -p 22 host",
])  # fmt: skip
def test_the_same_letter_means_other_things_elsewhere(command: str) -> None:
    assert redact_text(command) == command


@pytest.mark.parametrize(("value", "shown"), [
    (["srv", "--token", "k3y"], ["srv", "--token", REDACTED]),
    (["srv", "--api-key", "k3y", "--port", "80"], ["srv", "--api-key", REDACTED, "--port", "80"]),
    (["--token", "--verbose"], ["--token", "--verbose"]),
    (["/usr/bin/mysql", "-uroot", "-ps3cret"], ["/usr/bin/mysql", "-uroot", "-p" + REDACTED]),
    ([["Authorization", "k3y"], ["Accept", "json"]], [["Authorization", REDACTED], ["Accept", "json"]]),
    ([["x-api-key", "k3y"]], [["x-api-key", REDACTED]]),
    (["token", "limit"], ["token", "limit"]),
    ({"name": "X-Api-Key", "value": "k3y"}, {"name": "X-Api-Key", "value": REDACTED}),
])  # fmt: skip
def test_what_a_list_says_of_its_next_item_counts(value: object, shown: object) -> None:
    """Arguments of programs, and headers as pairs."""
    assert redact(value) == shown


def test_an_id_that_is_a_credential_is_masked_and_stays_apart_from_others() -> None:
    other = KEY[:-1] + "d"
    assert KEY not in safe_id(KEY) and safe_id(KEY).startswith("ghp_…")
    assert safe_id(KEY) != safe_id(other)
    assert mask_secrets(f"revoke key {KEY}: why") == f"revoke key {safe_id(KEY)}: why"


@pytest.mark.parametrize(
    "name", ["key_0007", "sk-billing-bot", "ci-bot", "0f8fad5b-d9cb-469f-a165-70867728950e", ""]
)
def test_an_id_that_names_something_is_shown_as_it_is(name: str) -> None:
    assert safe_id(name) == name


@pytest.mark.parametrize(
    "fragment", ["curl -u ", "7z -p", "sshpass ", "docker login ", "docker ", "curl -u a:", "zip -P "]
)
def test_no_long_run_of_commands_stalls_the_redaction(fragment: str) -> None:
    """Ten times the text takes about ten times as long, not a hundred."""

    def cost(size: int) -> float:
        began = time.process_time()
        redact_text((fragment * size)[:size])
        return time.process_time() - began

    assert cost(200_000) < 40 * max(cost(20_000), 0.002)
