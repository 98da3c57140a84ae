"""Every command from the outside: help, exit codes, and what it says."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from mcpwatch.cli.commands import COMMANDS
from mcpwatch.detection.rulefile import SHIPPED
from tests.functional.program import MCPWATCH, SAMPLES, Home, outcome, records

POLICY = SAMPLES / "policy.yaml"
DEMO = SAMPLES / "demo-incident.jsonl"
BROKEN = SAMPLES / "broken.jsonl"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, "policy init", "policy lint", "rules list", "rules show", "rules test", "rules export"],
)
def test_help_has_examples_that_begin_with_the_command(home: Home, command: str) -> None:
    done = home.run(*command.split(), "--help")
    assert done.returncode == 0
    examples = done.stdout.split("Examples:")[1]
    assert f"mcpwatch {command}" in examples


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--version"], 0, ""),
        ([], 2, "Usage: mcpwatch"),
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["replay"], 2, "Missing argument"),
        (["tail"], 2, "Missing argument"),
        (["replay", DEMO, "--nonsense"], 2, "No such option"),
        (["replay", DEMO, "--fail-on", "bad"], 2, "'bad' is not one of"),
        (["replay", DEMO, "--format", "bad"], 2, "there is no such format; there are: auto, native, generic"),
        (["replay", DEMO, "--filter", "tier>>x"], 2, "unknown tier"),
        (["tail", DEMO, "--since", "15"], 2, "'15' is not a duration"),
        (["replay", DEMO, "--from", "yesterday"], 2, "is no time"),
        (["replay", DEMO, "--from", "2026-11-21", "--to", "2026-11-20"], 2, "--from must be before --to"),
        (["replay", DEMO, "--plain", "--json"], 2, "--plain and --json exclude each other"),
        (["tail", DEMO, "--plain", "--json"], 2, "--plain and --json exclude each other"),
        (["replay", "-"], 2, "mcpwatch tail -"),
        (["replay", "absent.jsonl"], 3, "absent.jsonl: there is no such file"),
        (["replay", "."], 3, "is a directory"),
        (["inspect", "absent.jsonl"], 3, "absent.jsonl: there is no such file"),
        (["tail", "redis://127.0.0.1:9"], 3, "not in this version"),
        (["replay", DEMO, "--policy", "absent.yaml"], 3, "absent.yaml: no such policy file"),
        (["replay", DEMO, "--formats", "absent"], 3, "absent"),
        (["rules", "show", "nonsense"], 2, "there is no rule 'nonsense'"),
        (["policy", "lint"], 3, "no policy file"),
        (["completion", "tcsh"], 2, "'tcsh' is not one of"),
    ],
    ids=lambda value: " ".join(map(str, value)) or "nothing" if isinstance(value, list) else "",
)
def test_exit_codes_of_wrong_calls(home: Home, args: list[object], code: int, said: str) -> None:
    """Each is one message on standard error that says what is wrong, and the exit code of its kind."""
    done = home.run(*args)
    assert done.returncode == code
    assert said in done.stderr
    if code >= 3:
        assert done.stderr.startswith("mcpwatch: ")
        assert done.stderr.count("\n") == 1


def test_an_invalid_policy_is_refused_with_file_and_line(home: Home) -> None:
    policy = home.folder / "bad.yaml"
    policy.write_text("version: 1\ntools:\n  shell: {enabeld: false}\n")
    for command in (
        ["replay", DEMO],
        ["tail", DEMO],
        ["policy", "lint"],
        ["rules", "list"],
        ["restore", "k"],
    ):
        done = home.run(*command, "--policy", policy)
        assert done.returncode == 3
        assert f"{policy}:3" in done.stderr
        assert "enabled" in done.stderr, "the nearest known key is named"


@pytest.mark.parametrize(("level", "code"), [("low", 1), ("high", 1), ("critical", 1), (None, 0)])
def test_fail_on_makes_exit_code_1(home: Home, level: str | None, code: int) -> None:
    asked = ["--fail-on", level] if level else []
    assert home.run("replay", DEMO, "--policy", POLICY, "--json", *asked).returncode == code


def test_fail_on_above_all_incidents_is_no_failure(home: Home) -> None:
    assert home.run("replay", BROKEN, "--policy", POLICY, "--json", "--fail-on", "high").returncode == 0
    assert home.run("replay", BROKEN, "--policy", POLICY, "--json", "--fail-on", "medium").returncode == 1


def test_replay_prints_incidents_by_first_hit_and_then_the_summary(home: Home) -> None:
    done = home.run("replay", DEMO, "--policy", POLICY, "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    found = records(done.stdout, "incident")
    assert len(found) == 12
    assert found == sorted(found, key=lambda record: (record["first_seen"], record["id"]))
    assert not [record for record in found if "change" in record]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["type"] == "summary"
    assert summary["lines"] == summary["understood"] == summary["events"] == 423
    assert sum(summary["incidents"].values()) == 12


def test_without_a_terminal_it_is_plain(home: Home) -> None:
    asked = home.run("replay", DEMO, "--policy", POLICY, "--plain")
    assert asked.stdout == home.run("replay", DEMO, "--policy", POLICY).stdout
    assert asked.stdout.count("\n") == 13
    assert asked.stdout.splitlines()[-1].startswith(
        "423 lines: 423 understood; 423 events; incidents: 1 critical"
    )


@pytest.mark.parametrize("arguments", [["--plain", "--events"], ["--plain", "--events", "--reveal"]])
def test_plain_output_of_a_hostile_log_has_only_printable_characters(
    home: Home, arguments: list[str]
) -> None:
    for command in (["replay", BROKEN, *arguments], ["inspect", BROKEN, "--all"]):
        done = home.run(*command)
        assert done.returncode == 0
        for line in (done.stdout + done.stderr).split("\n"):
            assert line == "" or line.isprintable()


def test_json_output_of_a_hostile_log_is_ascii_json(home: Home) -> None:
    done = home.run("replay", BROKEN, "--json", "--events", "--reveal")
    assert len(records(done.stdout, "event")) == 77
    for record in records(home.run("inspect", BROKEN, "--json").stdout, "inspect"):
        assert record["lines"] == 98


def test_the_filter_changes_the_shown_events_and_nothing_else(home: Home) -> None:
    everything = home.run("replay", DEMO, "--policy", POLICY, "--json", "--events").stdout
    some = home.run(
        "replay", DEMO, "--policy", POLICY, "--json", "--events", "--filter", "key:key_0007"
    ).stdout
    shown = records(some, "event")
    assert 0 < len(shown) < len(records(everything, "event")) == 423
    assert {event["key_id"] for event in shown} == {"key_0007"}
    assert outcome(some) == outcome(everything)


def test_parameters_are_redacted_unless_revealed(home: Home) -> None:
    log = home.folder / "a.jsonl"
    record = {"timestamp": 1795132800, "tool": "login", "params": {"password": "hunter2-hunter2"}}
    log.write_text(json.dumps(record) + "\n")
    for form in ("--json", "--plain"):
        assert "hunter2" not in home.run("replay", log, form, "--events").stdout
        assert "hunter2" in home.run("replay", log, form, "--events", "--reveal").stdout


def test_from_and_to_cut_a_span_out_of_a_log(home: Home) -> None:
    whole = records(home.run("replay", DEMO, "--json", "--events").stdout, "event")
    span = ["--from", "2026-11-20T03:14:40Z", "--to", "2026-11-20T03:15:00Z"]
    part = records(home.run("replay", DEMO, "--json", "--events", *span).stdout, "event")
    wanted = [e for e in whole if "2026-11-20T03:14:40" <= e["time"] < "2026-11-20T03:15:00"]
    assert part == wanted != []


def test_a_rotation_set_is_one_log_in_any_order_and_compressed(home: Home) -> None:
    lines = DEMO.read_bytes().splitlines(keepends=True)
    old, middle, new = (home.folder / name for name in ("a.jsonl.2.gz", "a.jsonl.1", "a.jsonl"))
    old.write_bytes(gzip.compress(b"".join(lines[:150])))
    middle.write_bytes(b"".join(lines[150:300]))
    new.write_bytes(b"".join(lines[300:]).rstrip(b"\n"))
    whole = home.run("replay", DEMO, "--policy", POLICY, "--json").stdout
    assert outcome(home.run("replay", new, old, middle, "--policy", POLICY, "--json").stdout) == outcome(
        whole
    )


def test_no_policy_is_said_on_standard_error(home: Home) -> None:
    assert "no policy: nothing is restricted" in home.run("replay", DEMO, "--json").stderr
    shutil.copy(POLICY, home.folder / "policy.yaml")
    assert home.run("replay", DEMO, "--json").stderr == ""


class TestBadInput:
    """What a log can be when it is no log."""

    def test_a_fifo_is_refused_at_once(self, home: Home) -> None:
        os.mkfifo(home.folder / "fifo")
        done = home.run("replay", "fifo")
        assert (done.returncode, "FIFO" in done.stderr) == (3, True)

    def test_a_binary_file_is_refused(self, home: Home) -> None:
        (home.folder / "a.bin").write_bytes(bytes(range(1, 10)) + b"\0\1\2" * 1000)
        done = home.run("replay", "a.bin")
        assert (done.returncode, "looks binary" in done.stderr) == (3, True)

    def test_an_empty_file_is_an_empty_log(self, home: Home) -> None:
        (home.folder / "a.jsonl").touch()
        done = home.run("replay", "a.jsonl", "--json")
        assert done.returncode == 0
        assert outcome(done.stdout)[1]["lines"] == 0

    def test_a_file_that_is_no_log_is_counted_and_said_to_be_none(self, home: Home) -> None:
        (home.folder / "README").write_text("# Title\n\nText.\n[1, 2]\n")
        done = home.run("replay", "README", "--json")
        assert done.returncode == 0
        _, summary = outcome(done.stdout)
        assert (summary["lines"], summary["not_understood"], summary["blank"]) == (4, 3, 1)
        assert "README: not one of its lines is an audit record" in done.stderr

    def test_an_unterminated_last_line_is_read(self, home: Home) -> None:
        (home.folder / "a.jsonl").write_text(
            '{"timestamp":1795132800,"tool":"a"}\n{"timestamp":1795132801,"tool":"b"}'
        )
        _, summary = outcome(home.run("replay", "a.jsonl", "--json").stdout)
        assert (summary["lines"], summary["understood"], summary["held"]) == (2, 2, 0)

    def test_broken_gzip_is_read_up_to_where_it_breaks(self, home: Home) -> None:
        (home.folder / "a.jsonl.gz").write_bytes(gzip.compress(DEMO.read_bytes())[:-2000])
        done = home.run("replay", "a.jsonl.gz", "--json", "--policy", POLICY)
        assert done.returncode == 3
        assert "a.jsonl.gz" in done.stderr
        incidents, summary = outcome(done.stdout)
        assert incidents
        assert 300 < summary["understood"] < 423

    def test_a_line_of_100_megabytes_is_one_line_that_is_not_understood(self, home: Home) -> None:
        """Its size does not show in the memory of replay or inspect."""
        record = b'{"timestamp":1795132800,"tool":"a"}\n'
        small, big = home.folder / "small.jsonl", home.folder / "big.jsonl"
        small.write_bytes(record * 2)
        with big.open("wb") as file:
            file.write(record + b'{"timestamp":1795132800,"tool":"')
            for _ in range(100):
                file.write(b"x" * 1_000_000)
            file.write(b'"}\n' + record)
        for command in (["replay", "--json"], ["inspect", "--json"]):
            usual, _ = peak_memory(home, *command, small)
            peak, out = peak_memory(home, *command, big)
            assert (out["lines"], out["understood"], out["not_understood"]) == (3, 2, 1)
            assert peak - usual < 16 << 20, f"{command}: {peak - usual:,} bytes more than for a short log"


def peak_memory(home: Home, *args: object) -> tuple[int, dict[str, int]]:
    """The most memory that a command held, in bytes, and the last record that it printed."""
    out = home.folder / "peak.out"
    with out.open("wb") as stdout:
        process = subprocess.Popen(
            [MCPWATCH, *map(str, args)], stdout=stdout, stderr=subprocess.DEVNULL, cwd=home.folder,
            env=home.environment(),
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    found: dict[str, int] = json.loads(out.read_text().splitlines()[-1])
    return used.ru_maxrss * 1024, found


@pytest.mark.parametrize(
    "args",
    [["replay", DEMO, "--json", "--events"], ["inspect", BROKEN, "--all"], ["rules", "list"], ["--help"]],
    ids=lambda args: args[0],
)
def test_a_reader_that_went_away_is_no_error(home: Home, args: list[object]) -> None:
    """`mcpwatch ... | head -1`: exit 0, and not a word."""
    read, write = os.pipe()
    with subprocess.Popen(
        [MCPWATCH, *map(str, args)],
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=home.folder,
        env=home.environment(),
    ) as process:
        os.close(write)
        if args[0] == "replay":
            assert os.read(read, 10)
        os.close(read)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err.decode().replace(home.run("replay", DEMO).stderr, "") == ""


def test_standard_output_that_is_closed_or_full_is_no_traceback(home: Home) -> None:
    for redirect, code in ((">&-", 0), (">/dev/full", 3)):
        done = subprocess.run(
            ["sh", "-c", f"{MCPWATCH} replay {DEMO} --json {redirect}"], capture_output=True, cwd=home.folder,
            env=home.environment(), check=False,
        )  # fmt: skip
        assert done.returncode == code
        assert b"Traceback" not in done.stderr
        assert b"Exception" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_stopped_replay_finishes_its_line_and_prints_the_summary(
    home: Home, number: int, code: int
) -> None:
    log = home.folder / "a.jsonl"
    log.write_bytes(DEMO.read_bytes() * 20)
    with subprocess.Popen(
        [MCPWATCH, "replay", log, "--policy", POLICY, "--json", "--events"],
        stdout=subprocess.PIPE,
        env=home.environment(),
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)  # it is in the middle of its work, and cannot end while nobody reads
        process.send_signal(number)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == code
    out = (first + rest).decode()
    _, summary = outcome(out)
    assert 0 < summary["lines"] < 20 * 423
    assert len(records(out, "event")) == summary["events"]


def test_inspect_names_the_format_the_fields_and_every_line_that_was_not_understood(home: Home) -> None:
    done = home.run("inspect", BROKEN, DEMO, "--json")
    broken, demo = records(done.stdout, "inspect")
    for found in (broken, demo):
        parts = ("understood", "not_understood", "blank", "repeated", "joined", "held")
        assert found["lines"] == sum(found[part] for part in parts)
    assert demo["not_understood"] == 0
    assert demo["format"] == "native"
    assert len(demo["fields"]) == 5
    assert broken["not_understood"] == len(broken["examples"]) == sum(broken["reasons"].values()) == 16
    lines = BROKEN.read_bytes().split(b"\n")
    for example in broken["examples"]:
        assert lines[example["line"] - 1] == BROKEN.read_bytes()[example["offset"] :].split(b"\n")[0]
    told = home.run("inspect", BROKEN, "--all").stdout
    assert "98 lines = 77 understood + 16 not understood + 5 blank + 0 repeated + 0 joined" in told
    for example in broken["examples"]:
        assert f"line {example['line']}: {example['text']}" in told


def test_rules_list_and_show_know_every_rule_and_the_limits_of_the_policy(home: Home) -> None:
    listed = records(home.run("rules", "list", "--json", "--policy", POLICY).stdout, "rule")
    assert [rule["id"] for rule in listed] == list(SHIPPED)
    by_id = {rule["id"]: rule for rule in listed}
    assert by_id["session-rate"]["limit"] == "more than 12 calls in 60 s"
    plain = home.run("rules", "list").stdout
    assert [line.split()[0] for line in plain.splitlines()] == list(SHIPPED)
    assert "more than 5 calls in 60 s" in plain
    shown = home.run("rules", "show", "session-rate", "--policy", POLICY).stdout
    assert "more than 12 calls in 60 s" in shown
    assert by_id["session-rate"]["runbook"][0] in shown


def test_policy_init_makes_a_policy_that_lint_accepts_and_touches_no_file_that_is_there(home: Home) -> None:
    log = SAMPLES / "quiet-day.jsonl"
    printed = home.run("policy", "init", "--from", log)
    assert printed.returncode == 0
    made = home.run("policy", "init", "--from", log, "--output", "policy.yaml")
    assert made.returncode == 0
    policy = home.folder / "policy.yaml"
    assert policy.read_text() == printed.stdout
    assert "policy.yaml: valid" in home.run("policy", "lint").stdout
    assert outcome(home.run("replay", log, "--json").stdout)[1]["understood"] == 1861
    policy.write_text("# mine\n")
    again = home.run("policy", "init", "--from", log, "--output", "policy.yaml")
    assert again.returncode == 3
    assert "is there already" in again.stderr
    assert policy.read_text() == "# mine\n"
    assert home.run("policy", "init", "--from", log, "--output", "no/where.yaml").returncode == 3
    assert home.run("policy", "init", "--from", "absent").returncode == 3


def test_policy_lint_says_file_and_line_and_exits_1_for_what_is_grave(home: Home) -> None:
    policy = home.folder / "policy.yaml"
    policy.write_text("version: 1\ntools:\n  shell_execute: {}\nunlisted_tools: allow\n")
    done = home.run("policy", "lint", "--json")
    advice = records(done.stdout, "advice")
    assert advice
    assert {item["file"] for item in advice} == {str(policy)}
    grave = [item for item in advice if item["severity"] == "high"]
    assert done.returncode == (1 if grave else 0)
    plain = home.run("policy", "lint").stdout
    for item in advice:
        assert f"{policy}:{item['line']}: {item['severity']}: {item['message']} [{item['code']}]" in plain


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_ones_that_the_shell_accepts(home: Home, shell: str) -> None:
    done = home.run("completion", shell)
    assert done.returncode == 0
    assert "_MCPWATCH_COMPLETE" in done.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=done.stdout.encode(), check=True)


def test_completion_offers_commands_and_their_options(home: Home) -> None:
    for words, number, offered in (
        ("mcpwatch rev", 1, "revoke"),
        ("mcpwatch policy in", 2, "init"),
        ("mcpwatch replay --fail", 2, "--fail-on"),
        ("mcpwatch replay --fail-on cr", 3, "critical"),
    ):
        home.env = {"_MCPWATCH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        assert home.run().stdout.splitlines() == [f"plain,{offered}"]


def test_demo_without_a_terminal_tells_the_story(home: Home) -> None:
    done = home.run("demo", "--keep", "kept")
    assert done.returncode == 0
    assert "FAILED" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith("the story held")
    log, policy = home.folder / "kept/audit.jsonl", home.folder / "kept/policy.yaml"
    assert records(home.run("replay", log, "--policy", policy, "--json").stdout, "incident")
