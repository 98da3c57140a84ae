"""An authenticated MCP server over HTTP behind nginx and Caddy: what each of the three logs, and who was refused."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.functional.program import Home, records
from tests.functional.servers.calls import CALLS, SECRET
from tests.functional.servers.fastmcp_client import client_at, make_calls
from tests.functional.servers.fastmcp_server import TOKEN, USER
from tests.functional.servers.running import (
    CADDY,
    NGINX,
    ROOT,
    caddy,
    command_of,
    free_port,
    nginx,
    serving,
    status_of_post,
)
from tests.functional.servers.watching import Tail

pytestmark = [
    pytest.mark.xdist_group("real-http"),
    pytest.mark.skipif(
        NGINX is None or CADDY is None, reason="needs nginx and Caddy (apt-get install nginx caddy)"
    ),
]

NAMES: Final = [tool for tool, _, _ in CALLS]
OUTCOMES: Final = ["success", "success", "success", "denied", "error", "error"]
LOGS: Final = (
    "nginx.jsonl", "nginx-combined.log", "nginx-error.log", "caddy.jsonl", "caddy.out", "uvicorn.log", "server.out",
    "otlp.jsonl",
)  # fmt: skip
BAD_TOKENS: Final = 3
TOO_MANY: Final = 2
ENCODED: Final = {"Mcp-Method": "tools/call", "Mcp-Name": "=?base64?cmVhZF9maWxl?="}
"""A call of read_file, its name as the revision 2026-07-28 lets clients write it."""


def recommended_log_format() -> str:
    """The log_format of nginx that the documentation recommends, as it stands there."""
    found = re.search(
        r"^ *(log_format .*?;)\n", (ROOT / "docs/formats.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


class Fleet:
    """A server with two proxies in front of it, its clients, and a tail on everything that they log."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        logs = [folder / name for name in LOGS]
        with Tail(self.home, logs) as tail, ExitStack() as stack:
            upstream = free_port()
            env = {"FASTMCP_ENABLE_RICH_LOGGING": "false"}
            command = command_of("fastmcp_server", folder, upstream)
            server = stack.enter_context(serving(command, upstream, output=folder / "server.out", env=env))
            by_nginx = (
                f"http://127.0.0.1:{stack.enter_context(nginx(folder, upstream, recommended_log_format()))}"
            )
            by_caddy = f"http://127.0.0.1:{stack.enter_context(caddy(folder, upstream))}"
            self.truth = [
                asyncio.run(make_calls(client_at(f"{proxy}/mcp", TOKEN, mode=mode)))
                for proxy, mode in ((by_nginx, "auto"), (by_nginx, "legacy"), (by_caddy, "auto"))
            ]
            self.refused = self._misbehave(by_nginx, by_caddy)
            server.terminate()
            server.wait()
            self.gone = [status_of_post(f"{by_nginx}/mcp"), status_of_post(f"{by_caddy}/mcp")]
            self.seen = tail.end()

    @staticmethod
    def _misbehave(by_nginx: str, by_caddy: str) -> list[int]:
        bad = {"Authorization": "Bearer wrong-token", "X-Api-Key": SECRET, **ENCODED}
        wrong = [status_of_post(f"{by_nginx}/mcp?api_key={SECRET}", bad) for _ in range(BAD_TOKENS)]
        wrong.append(status_of_post(f"{by_caddy}/mcp?api_key={SECRET}", bad))
        status_of_post(f"{by_nginx}/limited", bad)
        often = [status_of_post(f"{by_nginx}/limited", bad) for _ in range(TOO_MANY)]
        return [*wrong, *often, status_of_post(f"{by_nginx}/private", method="GET")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"))


def test_the_clients_saw_what_these_tests_take_for_granted(fleet: Fleet) -> None:
    assert fleet.truth == [[(tool, works) for tool, _, works in CALLS]] * 3
    assert fleet.refused == [401] * (BAD_TOKENS + 1) + [429] * TOO_MANY + [403]
    assert fleet.gone == [502, 502]


def test_a_proxy_that_logs_headers_names_the_tools_and_leaves_their_outcome_open(fleet: Fleet) -> None:
    """HTTP 200 also carries refused, unknown and failed tools."""
    passed_on = [(tool, "unknown") for tool in NAMES]
    refused = [("read_file", "unauthenticated")] * (BAD_TOKENS + 1) + [
        ("read_file", "rate_limited")
    ] * TOO_MANY
    assert fleet.seen.calls("nginx.jsonl") == passed_on + refused
    assert fleet.seen.calls("caddy.jsonl") == [*passed_on, ("read_file", "unauthenticated")]


@pytest.mark.parametrize(
    "log", ["nginx.jsonl", "nginx-combined.log", "nginx-error.log", "caddy.jsonl", "caddy.out", "uvicorn.log"]
)
def test_no_access_log_ever_tells_of_a_success(fleet: Fleet, log: str) -> None:
    assert "success" not in {event["status"] for event in fleet.seen.events.get(log, [])}


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            "nginx.jsonl",
            {"unauthenticated": BAD_TOKENS + 1, "rate_limited": TOO_MANY, "denied": 1, "error": 1},
        ),
        (
            "nginx-combined.log",
            {"unauthenticated": BAD_TOKENS + 1, "rate_limited": TOO_MANY, "denied": 1, "error": 1},
        ),
        ("nginx-error.log", {"rate_limited": TOO_MANY, "denied": 1}),
        ("caddy.jsonl", {"unauthenticated": 1, "error": 1}),
        ("caddy.out", {}),
        ("uvicorn.log", {"unauthenticated": BAD_TOKENS + 2}),
        ("server.out", {"unauthenticated": BAD_TOKENS + 2, "denied": 3, "error": 6, "success": 9}),
    ],
)
def test_refusals_are_seen(fleet: Fleet, log: str, expected: dict[str, int]) -> None:
    seen = Counter(
        event["status"]
        for event in fleet.seen.events.get(log, [])
        if event["event"] == "tool_call" or event["status"] != "success"
    )
    del seen["unknown"]
    assert seen == expected


@pytest.mark.parametrize("log", ["nginx.jsonl", "nginx-combined.log", "caddy.jsonl", "uvicorn.log"])
def test_refusals_have_an_address(fleet: Fleet, log: str) -> None:
    refused = [event for event in fleet.seen.events[log] if event["status"] == "unauthenticated"]
    assert {event.get("source_ip") for event in refused} == {"127.0.0.1"}


def test_spans_say_who_called_and_how_it_ended(fleet: Fleet) -> None:
    """Only a client of the old protocol has one session for all of its calls."""
    assert fleet.seen.calls("otlp.jsonl") == list(zip(NAMES, OUTCOMES, strict=True)) * 3
    calls = fleet.seen.of_kind("otlp.jsonl", "tool_call")
    assert {event["subject"] for event in calls} == {USER}
    newest, old, behind_caddy = ({event["session_id"] for event in calls[at : at + 6]} for at in (0, 6, 12))
    assert (len(newest), len(old), len(behind_caddy)) == (6, 1, 6)


def test_the_old_protocol_shows_its_session_in_the_logs_of_the_proxy(fleet: Fleet) -> None:
    (session,) = {event["session_id"] for event in fleet.seen.of_kind("otlp.jsonl", "tool_call")[6:12]}
    by_proxy = [event for event in fleet.seen.events["nginx.jsonl"] if event.get("session_id") == session]
    assert len(by_proxy) > len(CALLS)


def test_wrong_tokens_become_an_incident_and_lock_nobody_out(fleet: Fleet) -> None:
    """Behind a proxy on the same machine everybody has the address of the loopback."""
    incidents = [
        record for record in records(fleet.seen.text, "incident") if record["rule"] == "auth-lockout"
    ]
    assert {incident["subject"]["source_ip"] for incident in incidents} == {"127.0.0.1"}
    assert fleet.seen.summary["restrictions"] == []


def test_keys_in_headers_and_queries_are_not_printed(fleet: Fleet) -> None:
    """They stand in clear in what Caddy and uvicorn log."""
    assert SECRET in (fleet.home.folder / "caddy.jsonl").read_text()
    assert SECRET in (fleet.home.folder / "uvicorn.log").read_text()
    assert SECRET not in fleet.seen.text
