"""Checks of allowed_paths and base_dir: too wide, not what they look like, or covered by another one."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from functools import partial
from typing import Final

from mcpwatch.policy.advice.subject import Found, Subject, shadowed, short
from mcpwatch.policy.paths import MAX_LENGTH, judge_path, looks_windows
from mcpwatch.policy.verdict import Verdict

_WHOLE: Final = re.compile(r"[/\\~$*]|[A-Za-z]:")


def _paths(subject: Subject) -> Iterator[tuple[tuple[str, str, str, int], str, str]]:
    for name, row in subject.policy.tools.items():
        for number, path in enumerate(row.allowed_paths or ()):
            yield ("tools", name, "allowed_paths", number), name, path


def wide_path(subject: Subject) -> Found:
    """A root that covers everything."""
    for place, name, path in _paths(subject):
        if re.fullmatch(r"[/\\]*|[A-Za-z]:[/\\]*", path):
            what = f"{short(path)} lets {short(name)} reach every file: name the folders"
            yield subject.line(*place), "high", what


def pattern_path(subject: Subject) -> Found:
    """A path that looks like a pattern, and is none."""
    for place, _, path in _paths(subject):
        if any(char in path for char in "*?~$"):
            what = f"{short(path)} is taken as it is written: patterns, ~ and variables mean nothing here"
            yield subject.line(*place), "medium", what


def relative_path(subject: Subject) -> Found:
    """A path whose start nobody knows."""
    for place, _, path in _paths(subject):
        if not _WHOLE.match(path):
            yield subject.line(*place), "medium", f"{short(path)} is relative: write the whole path"
    for name, row in subject.policy.tools.items():
        if row.base_dir is not None and not _WHOLE.match(row.base_dir):
            what = f"base_dir {short(row.base_dir)} is relative: write the whole path"
            yield subject.line("tools", name, "base_dir"), "medium", what


def path_without_slash(subject: Subject) -> Found:
    """A folder that does not look like one."""
    for place, _, path in _paths(subject):
        if path[-1] not in "/\\*":
            yield (
                subject.line(*place),
                "low",
                f"{short(path)} has no slash at its end: write one if it is a folder",
            )


def shadowed_path(subject: Subject) -> Found:
    """A path that another one of the same list covers."""
    for name, row in subject.policy.tools.items():
        windows = looks_windows(row.allowed_paths)
        covers = partial(_covers, windows=windows)
        for number, path, outer in shadowed(row.allowed_paths or (), partial(_key, windows), _above, covers):
            what = f"{short(path)} is covered by {short(outer)} in the same list: remove one of the two"
            yield subject.line("tools", name, "allowed_paths", number), "low", what


def base_outside(subject: Subject) -> Found:
    """A base_dir from which no relative path leads into an allowed folder without climbing."""
    for name, row in subject.policy.tools.items():
        base = row.base_dir
        if base is None or not row.allowed_paths or not _WHOLE.match(base):
            continue
        windows = looks_windows((*row.allowed_paths, base))
        inside = judge_path(base, row.allowed_paths, windows=windows).verdict is not Verdict.VIOLATION
        above = any(
            judge_path(path, (base,), windows=windows).verdict is not Verdict.VIOLATION
            for path in row.allowed_paths
        )
        if not inside and not above:
            what = (
                f"base_dir {short(base)} is outside allowed_paths, and so is every relative path: correct one"
            )
            yield subject.line("tools", name, "base_dir"), "medium", what


def _key(windows: bool, path: str) -> str | None:
    if len(path) > MAX_LENGTH or not _WHOLE.match(path):
        return None
    return posixpath.normpath(path.replace("\\", "/").casefold() if windows else path)


def _above(path: str) -> Iterator[str]:
    while (above := posixpath.dirname(path)) != path:
        yield above
        path = above


def _covers(outer: str, inner: str, *, windows: bool) -> bool:
    return judge_path(inner, (outer,), windows=windows).verdict is Verdict.ALLOWED
