"""`mcpwatch policy lint` from the outside: what it prints, for whom, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mcpwatch.cli.advice import Progress
from mcpwatch.text import safe
from tests.functional.program import MCPWATCH, SAMPLES, Home, records

LOOSE = (
    "version: 1\nunlisted_tools: deny\ntools:\n  crm_sync: {}\n  shell_execute: {require_audit_log: true}\n"
)
"""Low advice on line 4, high on line 5."""
SOUND = "version: 1\nunlisted_tools: deny\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "policy.yaml").write_text(LOOSE)
    (tmp_path / "sound.yaml").write_text(SOUND)
    (tmp_path / "bad.yaml").write_text("version: 1\ntools: 3\n")
    return Home(tmp_path)


def on_terminal(home: Home, *args: str) -> tuple[int, str]:
    """Exit code and what a terminal would show, with its colours."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(args, stdin=theirs, stdout=theirs, stderr=theirs, cwd=home.folder,
                          env=home.environment()) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # how Linux says that nobody writes any more
                break
            if not part:
                break
            shown += part
    os.close(ours)
    return process.returncode, shown.decode().replace("\r\n", "\n")


def test_plain_lines_are_those_of_compilers_and_a_summary(home: Home) -> None:
    done = home.run("policy", "lint", "policy.yaml", "sound.yaml")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"policy\.yaml:4: low: crm_sync .*: set risk: .* \[unrated\]", lines[0])
    assert re.fullmatch(r"policy\.yaml:5: high: shell_execute .* \[shell-enabled\]", lines[1])
    assert lines[2:] == ["policy.yaml: valid; 2 pieces of advice: 1 high, 1 low", "sound.yaml: valid"]
    assert done.stderr == ""
    (home.folder / "one.yaml").write_text(SOUND + "tools: {crm_sync: {}}\n")
    assert "one.yaml: valid; 1 piece of advice: 1 low\n" in home.run("policy", "lint", "one.yaml").stdout


def test_on_a_terminal_it_is_aligned_and_coloured_and_says_what_programs_take(home: Home) -> None:
    home.env["TERM"] = "xterm-256color"
    code, shown = on_terminal(home, str(MCPWATCH), "policy", "lint", "policy.yaml")
    assert code == 1
    low, high, summary, hint = shown.splitlines()
    assert "\x1b[" in low
    assert "\x1b[" in high
    bare = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in (low, high)]
    assert [line.split()[:2] for line in bare] == [["policy.yaml:4", "low"], ["policy.yaml:5", "high"]]
    assert bare[0].index("crm_sync") == bare[1].index("shell_execute")
    assert summary.startswith("policy.yaml: valid; 2 pieces of advice")
    assert "--json" in hint
    assert "--sarif" in hint


@pytest.mark.parametrize("env", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_there_is_no_colour_where_nobody_wants_it(home: Home, env: dict[str, str]) -> None:
    home.env |= env
    assert "\x1b" not in on_terminal(home, str(MCPWATCH), "policy", "lint", "policy.yaml")[1]


@pytest.mark.parametrize(
    ("file", "level", "code"),
    [
        ("policy.yaml", [], 1),
        ("policy.yaml", ["--fail-on", "high"], 1),
        ("policy.yaml", ["--fail-on", "critical"], 0),
        ("sound.yaml", ["--fail-on", "low"], 0),
        ("low.yaml", [], 0),
        ("low.yaml", ["--fail-on", "medium"], 0),
        ("low.yaml", ["--fail-on", "low"], 1),
    ],
)
def test_fail_on_decides_the_exit_code(home: Home, file: str, level: list[str], code: int) -> None:
    (home.folder / "low.yaml").write_text(SOUND + "tools: {crm_sync: {}}\n")
    assert home.run("policy", "lint", file, *level).returncode == code
    assert home.run("policy", "lint", file, *level, "--sarif").returncode == code


def test_json_has_a_line_for_each_piece_of_advice_on_each_file(home: Home) -> None:
    (home.folder / "b.yaml").write_text(LOOSE)
    done = home.run("policy", "lint", "policy.yaml", "b.yaml", "--json")
    found = records(done.stdout, "advice")
    assert [(item["file"], item["line"], item["severity"], item["code"]) for item in found] == [
        ("policy.yaml", 4, "low", "unrated"),
        ("policy.yaml", 5, "high", "shell-enabled"),
        ("b.yaml", 4, "low", "unrated"),
        ("b.yaml", 5, "high", "shell-enabled"),
    ]
    assert len(found) == done.stdout.count("\n")


def test_sarif_is_one_log_of_all_files_the_same_each_time(home: Home) -> None:
    done = home.run("policy", "lint", "policy.yaml", SAMPLES / "policy.yaml", "--sarif")
    log = json.loads(done.stdout)
    uris = [
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for result in log["runs"][0]["results"]
    ]
    assert uris[:2] == ["policy.yaml"] * 2
    assert {*uris[2:]} == {(SAMPLES / "policy.yaml").as_uri()}
    assert home.run("policy", "lint", "policy.yaml", SAMPLES / "policy.yaml", "--sarif").stdout == done.stdout


@pytest.mark.parametrize("form", [[], ["--json"], ["--sarif"]])
def test_files_that_cannot_be_used_do_not_keep_the_others_from_being_checked(
    home: Home, form: list[str]
) -> None:
    done = home.run("policy", "lint", "bad.yaml", "policy.yaml", "absent.yaml", *form)
    assert done.returncode == 3
    assert re.fullmatch(r"mcpwatch: bad\.yaml:2: .*\nmcpwatch: absent\.yaml: no such.*\n", done.stderr)
    assert "shell_execute" in done.stdout
    if form == ["--sarif"]:
        [run] = json.loads(done.stdout)["runs"]
        assert not run["invocations"][0]["executionSuccessful"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--json", "--sarif"], "--json and --sarif exclude each other"),
        (["policy.yaml", "--policy", "sound.yaml"], "--policy and FILE exclude each other"),
        (["--fail-on", "bad"], "'bad' is not one of"),
    ],
)
def test_options_that_contradict_each_other_are_a_usage_error(home: Home, args: list[str], said: str) -> None:
    done = home.run("policy", "lint", *args)
    assert done.returncode == 2
    assert said in done.stderr


def test_settings_give_way_to_what_the_command_line_asks_for(home: Home) -> None:
    home.env = {"MCPWATCH_JSON": "1", "MCPWATCH_POLICY": "bad.yaml", "MCPWATCH_FAIL_ON": "critical"}
    done = home.run("policy", "lint", "policy.yaml", "--sarif")
    assert json.loads(done.stdout)["version"] == "2.1.0"
    assert done.returncode == 0
    home.env = {"MCPWATCH_POLICY": "policy.yaml"}
    assert home.run("policy", "lint").returncode == 1


def test_scan_symlinks_finds_links_of_this_machine_and_only_when_asked(home: Home) -> None:
    (home.folder / "data").mkdir()
    (home.folder / "data/\x1b[2Jevil").symlink_to("/etc")
    (home.folder / "links.yaml").write_text(
        f"{SOUND}tools:\n  calculator: {{allowed_paths: ['{home.folder}/data/']}}\n"
    )
    assert "valid\n" in home.run("policy", "lint", "links.yaml").stdout
    done = home.run("policy", "lint", "links.yaml", "--scan-symlinks", "--json", "--fail-on", "medium")
    [found] = records(done.stdout, "advice")
    assert (found["code"], found["line"], found["severity"]) == ("link-outside", 4, "medium")
    assert "\\e[2Jevil leads to /etc" in found["message"]
    assert done.returncode == 1
    assert done.stderr == "", "a scan that is quick says nothing"


def test_a_long_scan_says_every_ten_seconds_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 0.9, 1.1, 5.0, 11.2])
    progress = Progress(lambda: next(times))
    for entries in (1_000, 2_000, 3_000, 4_000):
        progress(entries, safe("/app"))
    progress.end()
    assert capsys.readouterr().err == "".join(
        f"mcpwatch: scanning for symbolic links: {entries} entries so far, now in /app\n"
        for entries in ("2,000", "4,000")
    )


def test_on_a_terminal_the_progress_is_one_line_that_goes_away(home: Home) -> None:
    program = (
        "from mcpwatch.cli.advice import Progress; times = iter([0.0, 0.9, 1.1, 1.2, 1.7])\n"
        "progress = Progress(lambda: next(times))\n"
        "for entries in (1, 2, 3, 4): progress(entries, '/app')\n"
        "progress.end()"
    )
    shown = on_terminal(home, sys.executable, "-c", program)[1]
    assert shown == "\r\x1b[K2 entries, now in /app\r\x1b[K4 entries, now in /app\r\x1b[K"


def test_linting_does_not_load_what_draws_the_console(home: Home) -> None:
    slow = {"rich", "textual", "publicsuffixlist"}
    program = f"import sys; from mcpwatch.cli.policy import COMMANDS; assert not {slow} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", program], check=True, env=home.environment())
