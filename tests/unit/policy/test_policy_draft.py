from __future__ import annotations

from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.event import AuditEvent
from mcpwatch.policy.draft import MAX_KEYS, MAX_TOOLS, MAX_VALUES, ToolsSeen, draft
from mcpwatch.policy.judge import Judge
from mcpwatch.policy.lint import lint
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import Policy


def call(tool: str, status: str = "success", **params: object) -> AuditEvent:
    return AuditEvent(
        tool=tool,
        event="tool_call",
        status=status,
        params=params,
        key_id="0007",
        client_id="ci-bot",
        scopes=["read"],
    )


def drafted(events: list[AuditEvent]) -> Policy:
    seen = ToolsSeen()
    for event in events:
        seen.add(event)
    return parse(draft(seen).encode(), None)


LOG = [
    call("file_read", path="/app/data/in/a.txt"),
    call("file_read", path="/app/data/in/deep/b.txt"),
    call("file_read", path="/app/public/index.html"),
    call("file_read", "denied", path="/etc/passwd"),
    call("http_request", url="https://api.openai.com/v1/models"),
    call("http_request", url="https://internal.example:8443/x"),
    call("http_request", "denied", url="https://evil.example/"),
    call("shell_execute", command="ls"),
    call("calculator", expression="1+1"),
    call("delete_user", "error", user="x"),
    call("yes: # x\n", path="/srv/a/b"),
]


def test_a_draft_allows_what_succeeded_and_nothing_that_was_refused() -> None:
    policy = drafted(LOG)
    assert policy.deny_unlisted
    assert policy.tools["file_read"].allowed_paths == ("/app/data/in/", "/app/public/")
    assert policy.tools["http_request"].allowed_domains == ("api.openai.com", "internal.example:8443")
    assert policy.tools["file_read"].require_scope == "read"
    assert policy.tools["file_read"].require_audit_log
    assert not policy.tools["shell_execute"].enabled
    assert not policy.tools["delete_user"].enabled
    assert policy.tools["calculator"].enabled
    assert policy.tools["yes: # x\n"].allowed_paths == ("/srv/a/",)
    assert (policy.keys["0007"].client, policy.keys["0007"].scopes) == ("ci-bot", ("read",))
    judge = Judge(policy)
    for event in LOG:
        if event.tool != "shell_execute":
            fine = not judge.for_tool(event.tool or "").findings(event.params)
            assert fine == (event.status != "denied"), event


def test_a_draft_has_no_serious_advice_against_it() -> None:
    seen = ToolsSeen()
    for event in LOG:
        seen.add(event)
    assert "high" not in {
        advice.severity for advice in lint(draft(seen).encode(), None, today=date(2026, 11, 22))
    }


def test_an_empty_log_gives_a_policy_that_allows_nothing() -> None:
    policy = parse(draft(ToolsSeen()).encode(), None)
    assert (dict(policy.tools), policy.deny_unlisted) == ({}, True)


def test_a_tool_whose_places_no_entry_covers_is_not_left_open() -> None:
    """Had it no list at all, it could reach everything."""
    policy = drafted(
        [call("file_read", path="/app/../etc/passwd"), call("http_get", url="http://169.254.169.254/")]
    )
    assert policy.tools["file_read"].allowed_paths == ()
    assert policy.tools["http_get"].allowed_domains == ()


def test_many_folders_become_a_few_that_hold_them_all_but_never_everything() -> None:
    paths = ["/top", *(f"/srv/site/{number}/x/y.txt" for number in range(50))]
    policy = drafted([call("file_read", path=path) for path in paths])
    assert policy.tools["file_read"].allowed_paths == ("/srv/site/", "/top")


def test_a_log_of_any_size_gives_a_policy_that_loads() -> None:
    seen = ToolsSeen()
    for number in range(MAX_TOOLS + 10):
        long = "\x01" * 150 + str(number)
        for path in range(MAX_VALUES + 50 if number < 3 else 1):
            event = call(long, path=f"/{number}/{path}/{'x' * 200}", url=f"https://{'a' * 60}{path}.example/")
            event.key_id = f"{number}-{path}"
            event.scopes = [f"s{path}"]
            seen.add(event)
    assert (len(seen.tools), len(seen.keys), seen.overlooked) == (MAX_TOOLS, MAX_KEYS, 10)
    assert max(len(tool.folders) for tool in seen.tools.values()) == MAX_VALUES
    parse(draft(seen).encode(), None)


values = st.text(max_size=12) | st.sampled_from(
    ["/a/b", "https://x.example/", "//", "file:///etc", "~/x", "C:\\x"]
)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(
        st.builds(
            AuditEvent,
            tool=st.none() | st.text(max_size=8),
            event=st.sampled_from(["tool_call", "auth", None]),
            status=st.sampled_from(["success", "denied", None]),
            params=st.none()
            | st.dictionaries(st.sampled_from(["path", "url", "x"]), values | st.lists(values), max_size=3),
            key_id=st.none() | st.text(max_size=8),
            client_id=st.none() | st.text(max_size=8),
            scopes=st.none() | st.lists(st.text(max_size=5), max_size=3),
        ),
        max_size=6,
    )
)
def test_whatever_is_in_the_log_the_draft_loads(events: list[AuditEvent]) -> None:
    drafted(events)
