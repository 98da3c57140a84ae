"""Options from the command line, the environment and config.toml: the nearer one wins."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from mcpwatch.cli.commands import COMMANDS, cli
from mcpwatch.cli.config import PREFIX, setting
from mcpwatch.cli.options import SETTINGS
from tests.functional.program import SAMPLES, Home, records

POLICY = SAMPLES / "policy.yaml"
DEMO = SAMPLES / "demo-incident.jsonl"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def with_limit(home: Home, limit: int) -> str:
    """A policy file with a limit by which to tell it from others."""
    path = home.folder / f"limit-{limit}.yaml"
    path.write_text(f"version: 1\nalerts: {{session_calls_per_minute: {limit}}}\n")
    return path.name


def limit_in_use(home: Home, *args: str) -> int:
    rules = records(home.run("rules", "list", "--json", *args).stdout, "rule")
    return next(int(rule["limit"].split()[2]) for rule in rules if rule["id"] == "session-rate")


def test_the_policy_is_the_option_s_the_environment_s_the_file_s_and_then_the_folder_s(home: Home) -> None:
    assert limit_in_use(home) == 5
    (home.folder / "policy.yaml").write_text("version: 1\nalerts: {session_calls_per_minute: 6}\n")
    assert limit_in_use(home) == 6
    home.configure(f'policy = "{with_limit(home, 7)}"\n')
    assert limit_in_use(home) == 7
    home.env = {"MCPWATCH_POLICY": with_limit(home, 8)}
    assert limit_in_use(home) == 8
    assert limit_in_use(home, "--policy", with_limit(home, 9)) == 9


def test_the_level_of_failure_comes_from_wherever_it_is_set(home: Home) -> None:
    def code(*args: str) -> int:
        return home.run("replay", SAMPLES / "broken.jsonl", "--policy", POLICY, "--json", *args).returncode

    assert code() == 0
    home.configure('fail-on = "medium"\n')
    assert code() == 1
    home.env = {"MCPWATCH_FAIL_ON": "high"}
    assert code() == 0
    assert code("--fail-on", "low") == 1


def test_flags_and_other_spellings_are_read_from_environment_and_file(home: Home) -> None:
    home.configure(
        'json = true\nevents = true\nfilter = "key:key_0007"\nfrom = 2026-11-20T03:14:50Z\nread_only = true\n'
    )
    events = records(home.run("replay", DEMO, "--policy", POLICY).stdout, "event")
    assert events
    assert {event["key_id"] for event in events} == {"key_0007"}
    assert min(event["time"] for event in events) >= "2026-11-20T03:14:50"
    home.env = {"MCPWATCH_EVENTS": "0"}
    assert not records(home.run("replay", DEMO, "--policy", POLICY).stdout, "event")
    (home.folder / "policy.yaml").write_bytes(POLICY.read_bytes())
    assert home.run("revoke", "key_0001", "--reason", "x").returncode == 4


def test_the_nearer_of_plain_and_json_wins(home: Home) -> None:
    def is_json(*args: str) -> bool:
        done = home.run("replay", DEMO, *args)
        assert done.returncode == 0
        return done.stdout.startswith("{")

    home.configure("json = true\n")
    assert is_json()
    assert not is_json("--plain")
    home.env = {"MCPWATCH_PLAIN": "1"}
    assert not is_json()
    assert is_json("--json")


def test_settings_of_other_commands_are_no_error(home: Home) -> None:
    home.configure('since = "15m"\ntheme = "x"\nfail-on = "high"\n[keys]\nquit = "z"\n')
    assert home.run("rules", "list").returncode == 0
    assert home.run("policy", "lint", "--policy", POLICY).returncode in (0, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('fail-onn = "high"', "unknown key 'fail-onn': did you mean fail-on?"),
        ("zzz = 1", "unknown key 'zzz': there are: enforce, events, fail-on,"),
        ("[keyz]\na = 1", "unknown key 'keyz': did you mean keys?"),
        ("keys = 3", '[keys] is a table of action = "key"'),
        ("[keys]\nquit = 3", '[keys] is a table of action = "key"'),
        ("policy = [1]", "policy must be one value"),
        ("policy = ", "is no TOML"),
        ('policy = "\udcff"', "is no TOML"),
    ],
)
def test_a_config_file_that_can_t_be_used_is_exit_3_with_its_path_and_the_key(
    home: Home, text: str, said: str
) -> None:
    path = home.configure("")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = home.run("replay", DEMO)
    assert done.returncode == 3
    assert done.stderr.startswith(f"mcpwatch: {path}: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_bad_value_says_where_it_stands(home: Home) -> None:
    path = home.configure("since = 15\n")
    done = home.run("tail", DEMO)
    assert (
        done.returncode,
        f"'15' is not a duration: write for example 90s, 5m, 1h30m or 2d (from {path})" in done.stderr,
    ) == (2, True)
    home.env = {"MCPWATCH_SINCE": "16"}
    done = home.run("tail", DEMO)
    assert (done.returncode, "(from MCPWATCH_SINCE)" in done.stderr) == (2, True)
    assert "(from" not in home.run("tail", DEMO, "--since", "17").stderr


def test_every_setting_is_known_to_the_config_file_and_named_after_its_option() -> None:
    context = click.Context(cli)
    todo = [command for name in COMMANDS if (command := cli.get_command(context, name)) is not None]
    seen = set()
    while todo:
        command = todo.pop()
        if isinstance(command, click.Group):
            todo += command.commands.values()
        for param in command.params:
            if (name := setting(param)) is not None:
                seen.add(name)
                assert f"--{name}" in param.opts
                assert param.envvar == PREFIX + name.upper().replace("-", "_")
    assert seen == SETTINGS
