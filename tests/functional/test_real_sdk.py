"""The official SDK's server and client: their spans, and what the server logs, followed while they talk."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.functional.program import Home
from tests.functional.servers.calls import CALLS
from tests.functional.servers.running import command_of, free_port, run_client, serving
from tests.functional.servers.watching import Tail, replayed

pytestmark = pytest.mark.xdist_group("real-sdk")

TRUTH: Final = [(tool, works) for tool, _, works in CALLS]
OUTCOMES: Final = [(tool, "success" if works else "error") for tool, works in TRUTH]


def test_each_call_counts_once_where_server_and_client_write_their_spans_to_one_file(tmp_path: Path) -> None:
    """The client's spans of failed tools have no status: read by themselves they would say that all went well."""
    home = Home(tmp_path)
    logs = [tmp_path / "otlp.jsonl", tmp_path / "sdk.log"]
    with Tail(home, logs) as tail:
        server = command_of("sdk_server", tmp_path)
        client = command_of("sdk_client", logs[0], "--", *server)
        with (tmp_path / "client.err").open("wb") as err:
            assert run_client(client, stderr=err) == TRUTH
        seen = tail.end()
    assert seen.calls("otlp.jsonl") == OUTCOMES
    again = replayed(home, logs)
    assert again.calls("otlp.jsonl") == OUTCOMES
    assert again.events["otlp.jsonl"] == seen.events["otlp.jsonl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sdk-http")


@pytest.fixture(scope="module")
def home(folder: Path) -> Home:
    """The logs of a server over HTTP and of its client, which spoke the newest protocol and then the old one."""
    port = free_port()
    server = serving(command_of("sdk_server", folder, port), port, output=folder / "server.out")
    with server, (folder / "client.err").open("wb") as err:
        url = f"http://127.0.0.1:{port}/mcp"
        client = command_of("sdk_client", folder / "client.jsonl", url, "auto", "legacy")
        assert run_client(client, stderr=err) == TRUTH * 2
    return Home(folder)


def test_calls_over_http_are_seen_whichever_protocol_the_client_speaks(home: Home, folder: Path) -> None:
    assert replayed(home, [folder / "otlp.jsonl"]).calls("otlp.jsonl") == OUTCOMES * 2


def test_spans_of_a_client_alone_never_say_that_a_failed_call_succeeded(home: Home, folder: Path) -> None:
    for options in ((), ("--format", "otlp-client-traces")):
        calls = replayed(home, [folder / "client.jsonl"], *options).calls("client.jsonl")
        assert "success" not in {status for _, status in calls}, options


def test_what_the_server_logs_about_failures_is_never_a_success(home: Home, folder: Path) -> None:
    seen = replayed(home, [folder / "sdk.log"])
    assert "success" not in seen.text.partition('"type":"summary"')[0]
