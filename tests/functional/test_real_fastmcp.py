"""FastMCP over standard input and output: what each of its logging middlewares writes, followed while it does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.functional.program import Home, Json
from tests.functional.servers.calls import CALLS, SECRET
from tests.functional.servers.fastmcp_client import client_at, make_calls
from tests.functional.servers.fastmcp_server import TOKEN
from tests.functional.servers.running import (
    command_of,
    environment_with,
    free_port,
    run_client,
    serving,
    status_of_post,
)
from tests.functional.servers.watching import Seen, Tail, inspected, replayed

pytestmark = pytest.mark.xdist_group("real-fastmcp")

LOGS: Final = (
    "structured.jsonl",
    "payloads.jsonl",
    "logging.log",
    "detailed.log",
    "errors.log",
    "plain.log",
    "otlp.jsonl",
)
"""Each middleware's own file, what the server printed with FASTMCP_ENABLE_RICH_LOGGING=false, and its spans."""

NAMES: Final = [tool for tool, _, _ in CALLS]
OUTCOMES: Final = ["success", "success", "success", "denied", "error", "error"]
"""A refusal is told from an error by its first words, `access denied`."""
FORMATS: Final = {
    "structured.jsonl": "fastmcp-structured",
    "payloads.jsonl": "fastmcp-structured",
    "logging.log": "fastmcp-logging",
    "detailed.log": "fastmcp-timing",
    "errors.log": "fastmcp-errors",
    "plain.log": "fastmcp-structured-text",
    "otlp.jsonl": "otlp-traces",
}


class Run:
    """One server and its client, followed by a tail."""

    def __init__(self, folder: Path, python: str, logs: tuple[str, ...]) -> None:
        self.home = Home(folder)
        self.folder = folder
        self.logs = [folder / name for name in logs]
        with Tail(self.home, self.logs) as tail:
            server = command_of("fastmcp_server", folder, python=python)
            client = command_of("fastmcp_client", *server, python=python)
            env = {"FASTMCP_ENABLE_RICH_LOGGING": "false"}
            with (folder / "plain.log").open("ab") as err:
                self.truth = run_client(client, stderr=err, env=env)
            self.seen = tail.end()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("fastmcp"), sys.executable, LOGS)


def test_the_client_saw_what_these_tests_take_for_granted(run: Run) -> None:
    assert run.truth == [(tool, works) for tool, _, works in CALLS]


@pytest.mark.parametrize("log", ["payloads.jsonl", "logging.log", "detailed.log", "otlp.jsonl"])
def test_calls_are_seen_with_their_tool_and_their_outcome(run: Run, log: str) -> None:
    assert run.seen.calls(log) == list(zip(NAMES, OUTCOMES, strict=True))


@pytest.mark.parametrize("log", ["structured.jsonl", "plain.log"])
def test_calls_are_seen_with_their_outcome_where_the_log_names_no_tool(run: Run, log: str) -> None:
    assert run.seen.calls(log) == [(None, outcome) for outcome in OUTCOMES]


def test_a_log_of_errors_gives_failed_calls_only(run: Run) -> None:
    assert [status for _, status in run.seen.calls("errors.log")] == OUTCOMES[3:]


@pytest.mark.parametrize("log", ["payloads.jsonl", "logging.log"])
def test_parameters_are_seen_where_the_log_has_them(run: Run, log: str) -> None:
    params = [event.get("params") for event in run.seen.of_kind(log, "tool_call")]
    assert params == [arguments | redacted(arguments) for _, arguments, _ in CALLS]


def redacted(arguments: Json) -> Json:
    return {name: "[redacted]" for name, value in arguments.items() if value == SECRET}


@pytest.mark.parametrize("log", [log for log in LOGS if log != "errors.log"])
def test_every_call_has_its_duration(run: Run, log: str) -> None:
    events = run.seen.of_kind(log, "tool_call")
    assert [event["tool"] for event in events if event.get("duration_ms", 0) <= 0 and "tool" in event] == []
    assert len(events) == len(CALLS)


def test_spans_have_a_session_id_of_their_own_each_and_no_rule_takes_them_for_many_sessions(run: Run) -> None:
    """A server without sessions makes up an id for every request."""
    sessions = [event["session_id"] for event in run.seen.of_kind("otlp.jsonl", "tool_call")]
    assert len(set(sessions)) == len(CALLS)


def test_the_secret_of_a_caller_is_not_printed(run: Run) -> None:
    """It stands in clear in two of the logs."""
    assert SECRET in (run.folder / "payloads.jsonl").read_text()
    assert SECRET not in run.seen.text


@pytest.fixture(scope="module")
def again(run: Run) -> Seen:
    """What a replay makes of the same logs."""
    return replayed(run.home, run.logs)


@pytest.mark.parametrize("log", LOGS)
def test_replay_of_the_log_gives_the_same_events(run: Run, again: Seen, log: str) -> None:
    """But for the time of lines that have none: live, the time of their arrival stands in."""
    timed = log in ("logging.log", "detailed.log", "errors.log", "otlp.jsonl")
    left_out = () if timed else ("time",)
    assert [bare(event, left_out) for event in again.events[log]] == [
        bare(event, left_out) for event in run.seen.events[log]
    ]
    assert {"time" in event for event in again.events[log]} == {timed}


def bare(event: Json, left_out: tuple[str, ...]) -> Json:
    return {name: value for name, value in event.items() if name not in left_out}


def test_inspect_names_every_format_and_counts_every_line(run: Run) -> None:
    told = inspected(run.home, run.logs)
    assert {name: record["format"] for name, record in told.items()} == FORMATS
    for record in told.values():
        assert record["lines"] == record["understood"] + record["not_understood"] + record["joined"]


OLD: Final = {
    "2.10": ("fastmcp==2.10.6", "mcp<1.13", "pydantic<2.12", "pydantic-settings<2.11"),
    "2.14": ("fastmcp==2.14.5",),
}


@pytest.fixture(scope="module", params=sorted(OLD))
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An older version, in an environment of its own."""
    version: str = request.param
    return Run(tmp_path_factory.mktemp(version), python_with(version), LOGS[:-1])


def python_with(version: str) -> str:
    try:
        return environment_with(*OLD[version])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs a package index with {' and '.join(OLD[version])}: {error}")


@pytest.mark.slow
def test_older_versions_are_read_as_the_newest_is(old: Run) -> None:
    """2.10 refuses invalid arguments before any middleware sees the call: the last call is in none of its logs."""
    logged = len(CALLS) - old.folder.name.startswith("2.10")
    assert old.truth == [(tool, works) for tool, _, works in CALLS]
    expected = list(zip(NAMES, OUTCOMES, strict=True))[:logged]
    for log in ("payloads.jsonl", "detailed.log", "logging.log"):
        assert old.seen.calls(log) == expected, log
    assert old.seen.calls("structured.jsonl") == [(None, outcome) for outcome in OUTCOMES[:logged]]


@pytest.mark.slow
def test_lines_that_an_older_version_wraps_for_the_eye_are_no_events(old: Run) -> None:
    """It knows no FASTMCP_ENABLE_RICH_LOGGING: what it prints is for people, in columns."""
    assert old.seen.events.get("plain.log", []) == []


@pytest.mark.slow
def test_an_older_server_is_read_over_http_too(tmp_path: Path) -> None:
    """The client asks in the newest protocol, and falls back to the one that the server has."""
    home, port = Home(tmp_path), free_port()
    logs = [tmp_path / "payloads.jsonl", tmp_path / "uvicorn.log"]
    command = command_of("fastmcp_server", tmp_path, port, python=python_with("2.14"))
    url = f"http://127.0.0.1:{port}/mcp"
    with Tail(home, logs) as tail:
        with serving(command, port, output=tmp_path / "server.out"):
            truth = asyncio.run(make_calls(client_at(url, TOKEN)))
            assert status_of_post(url, {"Authorization": "Bearer wrong-token"}) == 401
        seen = tail.end()
    assert truth == [(tool, works) for tool, _, works in CALLS]
    assert seen.calls("payloads.jsonl") == list(zip(NAMES, OUTCOMES, strict=True))
    by_outcome = Counter(event["status"] for event in seen.events["uvicorn.log"])
    assert (by_outcome["unauthenticated"], by_outcome["success"]) == (1, 0)
