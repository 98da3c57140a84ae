"""Which parameters of a call are paths, and which are URLs?

In this order: what the policy says of the tool, what is known of well-known tools, the parameter's name, and the
shape of its value. Free text is never taken for a path by its shape: a note that begins with /etc/hosts opens
nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mcpwatch.policy.effort import MAX_VALUES, Effort
from mcpwatch.policy.model import ToolPolicy

MAX_DEPTH: Final = 32
TOO_MUCH: Final = "nested too deep or too many values"
_MAX_MARK: Final = 64
MAX_JSON: Final = 1 << 20
"""Longest text that is read as JSON: no line of a log holds a longer one."""
_MAX_SHAPED: Final = 8_192


# Roles: what a parameter's value is judged as. Plain bits, as enum arithmetic is too slow for every call of a log.
NEITHER: Final = 0
PATH: Final = 1
URL: Final = 2


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a well-known tool beyond what the names of its parameters say."""

    paths: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    neither: frozenset[str] = frozenset()
    """Parameters whose names mislead: a `target` that is a branch, a `path` inside a repository."""
    uris: frozenset[str] = frozenset()
    """Parameters whose scheme says what they are: a file, something on the web, or a name that the server gave."""
    holders: frozenset[str] = frozenset()
    """Parameters whose name is that of free text, and which may hold a structure with paths all the same."""
    inert: bool = False
    """Takes neither paths nor URLs at all."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _known(
    paths: str = "",
    urls: str = "",
    neither: str = "",
    *,
    uris: str = "",
    holders: str = "",
    inert: bool = False,
) -> Known:
    return Known(
        _names(paths), _names(urls), _names(neither), uris=_names(uris), holders=_names(holders), inert=inert
    )


_INERT: Final = _known(inert=True)
_SHELL: Final = _known(
    "cwd workdir working_directory working_dir directory",
    neither="command cmd args arguments commands script shell input stdin env environment",
)
_TWO_PATHS: Final = _known("source destination from to src dst old new old_path new_path target link")
_SEARCH: Final = _known("path", neither="pattern patterns exclude_patterns file_pattern")
_GIT: Final = _known(
    "repo_path files",
    neither="target source base_branch branch_name revision branch_type contains not_contains",
)
_REPOSITORY: Final = _known(
    neither="path paths path_filter file files file_path previous_path filename source target head base ref branch"
)
_GIST: Final = _known(neither="filename files")
# `target` and `element` of a browser are places on the page
_PAGE: Final = "target element start_target end_target start_element end_element ref function"
_BROWSER: Final = _known(neither=_PAGE, inert=True)
_BROWSER_FILE: Final = _known("filename path paths", neither=_PAGE + " filter static part data")
_COOKIE: Final = _known(neither="domain path value", inert=True)

RESOURCE_READ: Final = "resources/read"
"""The MCP request that reads a resource; `known_tool` knows it among the tools."""

# Names alone settle most tools (read_file, fetch, browser_navigate, …); here is only what they don't.
_TABLE: Final[tuple[tuple[str, Known], ...]] = (
    ("calculator datetime text_transform get_current_time convert_time sequentialthinking", _INERT),
    # filesystem
    ("search_files directory_tree list_directory list_directory_with_sizes search_within_files", _SEARCH),
    (
        "move_file rename_file copy_file move_directory copy_directory rename_directory create_symlink",
        _TWO_PATHS,
    ),
    ("move copy rename symlink link", _TWO_PATHS),
    ("read_multiple_files", _known("paths")),
    ("list_allowed_directories", _INERT),
    # memory
    (
        "create_entities create_relations add_observations delete_entities delete_observations delete_relations"
        " read_graph search_nodes open_nodes memory_store memory_recall",
        _INERT,
    ),
    # slack
    (
        "slack_list_channels slack_post_message slack_reply_to_thread slack_add_reaction slack_get_users"
        " slack_get_channel_history slack_get_thread_replies slack_get_user_profile",
        _INERT,
    ),
    # brave-search, google-drive, google-maps, sentry
    ("brave_web_search brave_local_search gdrive_search gdrive_read_file", _INERT),
    (
        "maps_directions maps_distance_matrix",
        _known(neither="origin origins destination destinations", inert=True),
    ),
    ("get_sentry_issue", _known(neither="issue_id_or_url", inert=True)),
    # everything
    (
        "get_sum get_env print_env long_running_operation trigger_long_running_operation sample_llm"
        " trigger_sampling_request get_tiny_image annotated_message get_annotated_message get_resource_reference"
        " get_resource_links get_roots_list get_structured_content",
        _INERT,
    ),
    ("gzip_file_as_resource", _known(urls="data", neither="name")),
    # git: `target` and `source` are revisions
    (
        "git_status git_diff_unstaged git_diff_staged git_diff git_commit git_reset git_log git_create_branch"
        " git_checkout git_show git_init git_branch git_add",
        _GIT,
    ),
    # github, gitlab: paths are inside a repository, not on this machine
    (
        "create_or_update_file get_file_contents push_files delete_file_contents get_repository_tree search_code"
        " list_commits get_commit create_pull_request get_pull_request_files create_branch list_branches"
        " fork_repository add_comment_to_pending_review create_merge_request_thread",
        _REPOSITORY,
    ),
    ("create_gist update_gist", _GIST),
    # sqlite, postgres
    (
        "read_query write_query query list_tables describe_table create_table append_insight execute_sql"
        " list_schemas list_objects get_object_details explain_query",
        _INERT,
    ),
    ("open_database connect_database attach_database", _known("path database db db_path filename")),
    # puppeteer, playwright
    ("puppeteer_navigate browser_navigate browser_tab_new browser_tabs", _known(urls="url")),
    ("puppeteer_screenshot", _known(neither="name selector")),
    (
        "browser_file_upload browser_drop browser_take_screenshot browser_pdf_save browser_snapshot"
        " browser_evaluate browser_run_code_unsafe browser_console_messages browser_network_requests"
        " browser_network_request browser_start_video browser_storage_state browser_set_storage_state",
        _BROWSER_FILE,
    ),
    (
        "puppeteer_click puppeteer_fill puppeteer_select puppeteer_hover puppeteer_evaluate browser_click"
        " browser_type browser_hover browser_drag browser_select_option browser_press_key browser_wait_for"
        " browser_fill_form browser_highlight browser_hide_highlight browser_generate_locator browser_find"
        " browser_verify_value browser_verify_list_visible browser_verify_text_visible",
        _BROWSER,
    ),
    ("browser_route browser_unroute", _known(neither="pattern headers", inert=True)),
    ("browser_resume", _known(neither="location", inert=True)),
    ("browser_cookie_list browser_cookie_set browser_cookie_get browser_cookie_delete", _COOKIE),
    # shells and process tools, Desktop Commander among them
    (
        "shell_execute bash shell sh execute_shell run_shell shell_exec run_shell_command execute_command"
        " run_command terminal start_process interact_with_process",
        _SHELL,
    ),
    ("start_search", _SEARCH),
    # a PDF is put together from others, whose paths stand in its content
    ("write_pdf", _known("path output_path", holders="content")),
    (
        "read_process_output force_terminate kill_process list_processes list_sessions list_searches stop_search"
        " get_more_search_results get_usage_stats get_recent_tool_calls get_prompts get_config",
        _INERT,
    ),
    # the requests for resources
    ("resources/read resources/subscribe resources/unsubscribe", _known(uris="uri")),
)

KNOWN_TOOLS: Final[Mapping[str, Known]] = {name: known for names, known in _TABLE for name in names.split()}
"""Well-known tools by name."""

PATH_NAMES: Final = _names(
    "path paths file files filename filenames file_name file_names filepath filepaths dir dirs directory"
    " directories folder folders source sources destination destinations src dst dest target targets cwd root"
    " roots workdir working_directory working_dir output_path output_file output_dir input_file input_path"
    " save_as log_file db_path database_path pathname workspace_root project_root"
)
"""Names of parameters that hold paths."""

URL_NAMES: Final = _names(
    "url urls uri uris href link links endpoint endpoints host hosts hostname hostnames domain domains webhook"
    " webhooks callback proxy"
)
"""Names of parameters that hold URLs or hosts."""

TEXT_NAMES: Final = _names(
    "content contents text body query message messages prompt command cmd commands script code sql html markdown"
    " description title subject comment summary reason thought note notes pattern regex old_text new_text"
    " old_string new_string old_str new_str insert_text file_text replacement search search_query question answer"
    " exclude_patterns include_patterns"
    " instructions system expression selector template diff patch snippet caption"
)
"""Names of free text, which is never taken for a path or URL by its shape."""

_PATH_ENDINGS: Final = re.compile(
    r"_(?:paths?|files?|filenames?|filepaths?|dirs?|director(?:y|ies)|folders?)$"
)
_URL_ENDINGS: Final = re.compile(r"_(?:url|urls|uri|uris|host|hostname|domain|endpoint|webhook)$")
_NOT_PATHS: Final = _names(
    "json_path url_path class_path css_path xml_path object_path api_path key_path is_file is_dir"
)

_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# A server may strip blanks and quotes first, and a path that starts in the right folder may climb out of it later.
_PATH_SHAPE: Final = re.compile(
    r"[\s\"'\ufeff]*(?:/|~[/\\]|~$|[A-Za-z]:[\\/]|\\\\|(?i:file:)|(?i:\.|%2e){1,2}(?:[\\/]|(?i:%2f|%5c))|%(?:25)*(?i:2f|5c))"
    r"|(?!\S*://)\S*?(?i:[/\\]|%2f|%5c)(?i:\.|%2e){2}(?:[/\\]|(?i:%2f|%5c)|$)"
)
_URL_SHAPE: Final = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:[/\\]{1,}\S*\s*", re.ASCII)
_DRIVE_SHAPE: Final = re.compile(r"[A-Za-z]:[\\/]")
_SCHEME_SHAPE: Final = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)

_REDACTED: Final = re.compile(
    r"[\[<({]+(?i:redacted|masked|hidden|removed|filtered|omitted|scrubbed)(?:[:\s][^\]>)}]*)?[\]>)}]+"
    r"|REDACTED|\*{3,}|•{3,}"
)
_TRUNCATED: Final = re.compile(
    r"(?:\.\.\.|…)?\s*[\[<(]\s*(?:\d[\d,]* (?:more )?(?:char\w*|bytes) )?truncated[^\]>)]*[\])>]", re.I
)


def plain_name(name: str) -> str:
    """The name in lower case with underscores: `filePath` and `file-path` are `file_path`."""
    # the cache must not keep megabytes alive
    return _plain(name[:128])


@lru_cache(maxsize=4_096)
def _plain(name: str) -> str:
    return _HUMP.sub("_", name).replace("-", "_").replace(" ", "_").lower()


def known_tool(tool: str) -> Known | None:
    """What is known of a tool by its name, without a prefix that names its server (`mcp__git__git_add`)."""
    tool = tool[-256:]
    bare = re.split(r"__|[./:]", tool)[-1]
    return KNOWN_TOOLS.get(tool) or KNOWN_TOOLS.get(plain_name(bare))


def withheld(text: str) -> bool:
    """Whether the log holds a mark such as `[REDACTED]` or `***` in the value's place."""
    return len(text) <= 256 and _REDACTED.fullmatch(text.strip()) is not None


def cut_at(text: str) -> tuple[int, bool] | None:
    """Where whoever wrote the log cut a value (`...[123 chars truncated]...`), and whether nothing follows.

    None for a whole value. A caller can write such a mark as well, so it must excuse nothing that follows it.
    """
    around = text.find("runcated")
    if around < 0:
        return None
    start = max(0, around - _MAX_MARK)
    match = _TRUNCATED.search(text[start : around + _MAX_MARK])
    return (start + match.start(), text[start + match.end() :].strip(" .…") == "") if match else None


def in_repository(params: Mapping[str, object]) -> bool:
    """Whether the call is about a repository elsewhere, where relative paths are not of this machine."""
    return "owner" in params and "repo" in params


@dataclass(frozen=True, slots=True)
class Roles:
    """How to recognise the paths and URLs of one tool.

    Attributes:
        path_params: The only parameters that are paths, when the policy names them.
        url_params: Likewise for URLs.
    """

    path_params: frozenset[str] | None
    url_params: frozenset[str] | None
    known: Known | None

    @staticmethod
    def of(tool: str, policy: ToolPolicy | None) -> Roles:
        """The roles of a tool's parameters under its row of the policy."""

        def names(given: tuple[str, ...] | None) -> frozenset[str] | None:
            return None if given is None else frozenset(map(plain_name, given))

        return Roles(
            names(policy.path_params if policy else None),
            names(policy.url_params if policy else None),
            known_tool(tool),
        )

    def named(self, name: str) -> tuple[int, bool]:
        """The role that a name alone gives, and whether the value's shape may add one."""
        plain = plain_name(name)
        role = NEITHER
        neither = self.known is not None and plain in self.known.neither
        free_text = plain in TEXT_NAMES or neither
        if self.path_params is not None:
            role |= PATH if plain in self.path_params else NEITHER
        elif not neither and self._is_path(plain):
            role |= PATH
        if self.url_params is not None:
            role |= URL if plain in self.url_params else NEITHER
        elif not neither and self._is_url(plain):
            role |= URL
        return role, not free_text

    def _is_path(self, plain: str) -> bool:
        if self.known is not None and plain in self.known.paths:
            return True
        return plain in PATH_NAMES or (_PATH_ENDINGS.search(plain) is not None and plain not in _NOT_PATHS)

    def _is_url(self, plain: str) -> bool:
        if self.known is not None and plain in self.known.urls:
            return True
        return plain in URL_NAMES or _URL_ENDINGS.search(plain) is not None

    def scheme_decides(self, name: str) -> bool:
        """Whether only its scheme says what a value is, unless the policy names the parameter."""
        return (
            self.known is not None
            and plain_name(name) in self.known.uris
            and self.path_params is None
            and self.url_params is None
        )

    def holds(self, name: str) -> bool:
        """Whether a parameter with the name of free text may be a structure with paths in it."""
        return self.known is not None and plain_name(name) in self.known.holders

    def sure(self, name: str) -> bool:
        """Whether a value of another type than text is worth telling, as the policy or the table names it."""
        plain = plain_name(name)
        named = (self.path_params or frozenset()) | (self.url_params or frozenset())
        return plain in named or (self.known is not None and plain in self.known.paths | self.known.urls)

    def shaped(self, text: str) -> int:
        """The role that a value's shape gives, for parameters that are not free text."""
        role = NEITHER
        # a path of another name, where the policy doesn't name the parameters
        # no system opens one as long as that, while text that begins with a slash may be anything
        short = len(text) <= _MAX_SHAPED
        if short and self.path_params is None and "\n" not in text and _PATH_SHAPE.match(text):
            role |= PATH
        if self.url_params is None and _URL_SHAPE.fullmatch(text) and not _DRIVE_SHAPE.match(text):
            role |= URL
        return role


def _of_scheme(text: str) -> int:
    """The role of a URI. Its scheme may be any word that a server made up: then it is neither."""
    bare = re.sub(r"[\x00-\x20]", "", text[:_MAX_SHAPED])
    scheme = None if _DRIVE_SHAPE.match(bare) else _SCHEME_SHAPE.match(bare)
    if scheme is None:
        return PATH if _PATH_SHAPE.match(text[:_MAX_SHAPED]) else NEITHER
    return {"file": PATH, "http": URL, "https": URL, "ws": URL, "wss": URL}.get(scheme[1].lower(), NEITHER)


@dataclass(frozen=True, slots=True)
class Part:
    """One value of a call that is judged, and as what. `value` is None where it can't be read at all."""

    name: str
    value: object
    role: int
    trouble: str = ""
    """Why it can't be evaluated."""


def parts_of(roles: Roles, name: str, value: object, effort: Effort | None = None) -> Iterator[Part]:
    """The parts of one parameter, nested ones too, that are paths or URLs. Never raises.

    `effort` is what is left for the values of the call, where the parameter has to share it with others.
    """
    left = effort if effort is not None else Effort()
    # (name, value, role inherited from a list or mapping around it, depth, inside JSON text already)
    waiting: list[tuple[str, object, int, int, bool]] = [(name, value, NEITHER, 0, False)]
    while waiting:
        name, value, outer, depth, parsed = waiting.pop()
        left.values -= 1
        role, open_shape = roles.named(name)
        inside = open_shape or roles.holds(name)
        role |= outer
        if left.values < 0 or depth > MAX_DEPTH:
            yield Part(name, None, PATH | URL, TOO_MUCH)
            return
        if isinstance(value, str):
            if roles.scheme_decides(name):
                role = _of_scheme(value)
            elif open_shape:
                role |= roles.shaped(value)
            if role:
                yield Part(name, value, role)
            if (role or inside) and not parsed and (inner := _from_json(value)) is not None:
                waiting.append((name, inner, outer, depth + 1, True))
        elif not role and not inside:
            continue  # a payload, whatever its structure
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if role & PATH and isinstance(key, str) and ("/" in key or "\\" in key):
                    yield Part(name, key, PATH)
                if len(waiting) > left.values:
                    break
                waiting.append((str(key) if isinstance(key, str) else "", item, NEITHER, depth + 1, parsed))
        elif isinstance(value, list | tuple | set | frozenset):
            items = list(value)[: MAX_VALUES + 1]
            waiting.extend((name, item, outer, depth + 1, parsed) for item in items)
        elif value is not None and role and roles.sure(name):
            yield Part(name, value, role, "not text")


def _from_json(text: str) -> object | None:
    """The object or array that a text holds as JSON, or None."""
    if not (2 <= len(text) <= MAX_JSON) or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
