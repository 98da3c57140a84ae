"""What is promised about which parameters of well-known tools are paths and URLs."""

from __future__ import annotations

from typing import Any

import pytest

from mcpwatch.policy.model import ToolPolicy
from mcpwatch.policy.params import NEITHER, PATH, URL, Roles, parts_of

ROW = ToolPolicy(allowed_paths=("/app/data/",), allowed_domains=("api.openai.com",))


def judged(tool: str, params: dict[str, Any], row: ToolPolicy | None = ROW) -> dict[str, int]:
    roles = Roles.of(tool, row)
    found: dict[str, int] = {}
    for name, value in params.items():
        for part in parts_of(roles, name, value):
            found[str(part.value)] = found.get(str(part.value), NEITHER) | part.role
    return found


@pytest.mark.parametrize(
    ("tool", "params", "paths"),
    [
        # filesystem
        ("read_text_file", {"path": "a", "head": 3}, "a"),
        ("read_media_file", {"path": "a"}, "a"),
        ("read_multiple_files", {"paths": ["a", "b"]}, "a b"),
        ("write_file", {"path": "a", "content": "/etc/hosts"}, "a"),
        ("edit_file", {"path": "a", "edits": [{"oldText": "/x", "newText": "/y"}], "dryRun": True}, "a"),
        ("move_file", {"source": "a", "destination": "b"}, "a b"),
        ("search_files", {"path": "a", "pattern": "/**/x", "excludePatterns": ["/y/**"]}, "a"),
        ("directory_tree", {"path": "a", "excludePatterns": ["../y"]}, "a"),
        ("list_allowed_directories", {}, ""),
        ("mcp__files__rename", {"from": "a", "to": "b"}, "a b"),
        # git
        ("git_add", {"repo_path": "a", "files": ["b", "c"]}, "a b c"),
        ("git_diff", {"repo_path": "a", "target": "origin/main"}, "a"),
        ("git_branch", {"repo_path": "a", "branch_type": "local", "contains": "HEAD"}, "a"),
        # github and gitlab: inside a repository
        ("create_or_update_file", {"owner": "o", "repo": "r", "path": "../x", "content": "y"}, ""),
        ("push_files", {"files": [{"path": "/x", "content": "y"}]}, ""),
        ("get_repository_tree", {"path_filter": "/src/"}, ""),
        ("create_gist", {"filename": "/x", "content": "y"}, ""),
        # databases
        ("read_query", {"query": "select '/etc/passwd'"}, ""),
        ("open_database", {"database": "a"}, "a"),
        ("execute_sql", {"sql": "/* */ select 1"}, ""),
        # browsers
        ("browser_file_upload", {"paths": ["a", "b"]}, "a b"),
        ("browser_take_screenshot", {"filename": "a", "target": "/html/body"}, "a"),
        ("browser_pdf_save", {"filename": "a"}, "a"),
        ("browser_drop", {"target": "/html", "paths": ["a"], "data": {"text/plain": "/x"}}, "a"),
        ("browser_set_storage_state", {"filename": "a"}, "a"),
        ("browser_click", {"target": "/html/body", "element": "../x"}, ""),
        ("browser_cookie_set", {"name": "n", "value": "/v", "domain": "d", "path": "/"}, ""),
        ("browser_route", {"pattern": "/api/**"}, ""),
        ("puppeteer_screenshot", {"name": "/x", "selector": "/y"}, ""),
        # shells and Desktop Commander
        ("shell_execute", {"command": ["cat", "/etc/x"], "directory": "a", "stdin": "/x"}, "a"),
        ("start_process", {"command": "/bin/ls", "shell": "/bin/zsh", "timeout_ms": 5}, ""),
        ("run_command", {"command": "ls", "cwd": "a", "env": {"PATH": "/usr/bin"}}, "a"),
        ("interact_with_process", {"pid": 3, "input": "/x"}, ""),
        ("edit_block", {"file_path": "a", "old_string": "/x", "new_string": "/y", "content": ["/z"]}, "a"),
        ("start_search", {"path": "a", "pattern": "/x", "filePattern": "/y"}, "a"),
        ("write_pdf", {"path": "a", "outputPath": "b", "content": "/not a path"}, "a b"),
        ("write_pdf", {"path": "a", "content": [{"type": "insert", "sourcePdfPath": "c"}]}, "a c"),
        ("write_pdf", {"path": "a", "content": '[{"sourcePdfPath": "c"}]'}, "a c"),
        # others
        ("maps_directions", {"origin": "/x", "destination": "/y"}, ""),
        ("slack_post_message", {"channel_id": "C1", "text": "/giphy hi"}, ""),
    ],
)
def test_the_paths_of_well_known_tools_are_found_and_nothing_else(
    tool: str, params: dict[str, Any], paths: str
) -> None:
    found = {value for value, role in judged(tool, params).items() if role & PATH and value[:1] not in "[{"}
    assert found == set(paths.split())


@pytest.mark.parametrize(
    ("tool", "params", "urls"),
    [
        ("fetch", {"url": "u", "max_length": 3}, "u"),
        ("browser_navigate", {"url": "u"}, "u"),
        ("browser_tabs", {"action": "new", "url": "u"}, "u"),
        ("gzip-file-as-resource", {"name": "x", "data": "u"}, "u"),
        ("read_file", {"path": "https://evil.com/x", "isUrl": True}, "https://evil.com/x"),
        ("get_sentry_issue", {"issue_id_or_url": "12345"}, ""),
        ("browser_cookie_list", {"domain": "d"}, ""),
    ],
)
def test_the_urls_of_well_known_tools_are_found_and_nothing_else(
    tool: str, params: dict[str, Any], urls: str
) -> None:
    assert {value for value, role in judged(tool, params).items() if role & URL} == set(urls.split())


@pytest.mark.parametrize(
    ("value", "is_path"),
    [
        ("/etc/x", True),
        (" /etc/x", True),
        ('"/etc/x"', True),
        ("data/../../etc/x", True),
        ("data%2f..%2f..%2fx", True),
        ("data/%2E%2E/x", True),
        ("..\\x", True),
        ("and/or", False),
        ("see a/ .. /b", False),
        ("https://h/a/../b", False),
        ("1.0..2.0", False),
        ("main..topic/x", False),
        ("a/..b", False),
    ],
)
def test_a_value_of_any_name_that_looks_like_a_path_is_one(value: str, is_path: bool) -> None:
    assert bool(judged("some_tool", {"which": value}).get(value, NEITHER) & PATH) is is_path


@pytest.mark.parametrize(
    ("uri", "role"),
    [
        ("file:///etc/x", PATH),
        ("FILE:/etc/x", PATH),
        (" fi\tle:///etc/x", PATH),
        ("/etc/x", PATH),
        ("../x", PATH),
        ("C:\\x", PATH),
        ("https://evil.com/x", URL),
        ("ws://evil.com", URL),
        ("postgres://host/table/schema", NEITHER),
        ("memo://insights", NEITHER),
        ("github://repos/o/r/x", NEITHER),
        ("test", NEITHER),
    ],
)
def test_the_scheme_of_a_resource_says_what_it_is(uri: str, role: int) -> None:
    assert judged("resources/read", {"uri": uri}).get(uri, NEITHER) == role


def test_the_policys_own_names_are_the_only_ones_for_resources_too() -> None:
    row = ToolPolicy(allowed_paths=("/app/",), path_params=("uri",))
    assert judged("resources/read", {"uri": "memo://x"}, row) == {"memo://x": PATH | URL}
