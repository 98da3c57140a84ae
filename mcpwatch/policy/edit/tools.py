"""Disabling a tool and enabling it."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from mcpwatch.documents.tree import Document
from mcpwatch.policy.edit.changes import Disable, Enable
from mcpwatch.policy.edit.scalars import LONGEST_KEY, quoted, scalar
from mcpwatch.policy.edit.sections import ADDED, append
from mcpwatch.policy.edit.splice import (
    BREAKS,
    Splice,
    behind_colon,
    cut_lines,
    editable,
    indent_of,
    line_behind,
    line_start,
    new_line,
    newline_of,
    next_line,
)
from mcpwatch.policy.edit.step import Step, microseconds
from mcpwatch.policy.model import Policy, PolicyError, ToolPolicy
from mcpwatch.text import safe
from mcpwatch.times import iso


def disable(change: Disable, document: Document, policy: Policy) -> Step:
    """Switch a tool off, or add it to the file as one that is."""
    summary = f"disable {safe(change.tool, 80)}"
    row = policy.tools.get(change.tool)
    if row is not None and not row.enabled:
        return Step(summary, (), policy)
    since = microseconds(change.since_ns)
    expected = _with_tool(policy, change.tool, replace(row or ToolPolicy(), enabled=False, since=since))
    if row is None:
        if not change.tool or len(scalar(change.tool)) > LONGEST_KEY:
            raise PolicyError(
                f"tool '{safe(change.tool, 80)}': a name of 1 to {LONGEST_KEY} characters is needed"
            )
        entry = f"{scalar(change.tool)}: {{enabled: false, since: {quoted(iso(since))}}}"
        return Step(summary, append(document, "tools", [entry], "", ADDED), expected)
    return Step(summary, _switch(document, change.tool, "false", since), expected)


def enable(change: Enable, document: Document, policy: Policy) -> Step:
    """Switch a tool on; raises PolicyError where that would permit more than anybody meant to."""
    summary = f"enable {safe(change.tool, 80)}"
    row = policy.tools.get(change.tool)
    if row is None and policy.deny_unlisted:
        raise PolicyError(
            f"tool '{safe(change.tool, 80)}' is not in the policy, which denies unlisted tools: "
            "add it under tools with what it may do"
        )
    if row is None or row.enabled:
        return Step(summary, (), policy)
    if change.undoes_ns is not None and row == ToolPolicy(
        enabled=False, since=microseconds(change.undoes_ns)
    ):
        lines = _added_tool(document, change.tool)
        if lines:
            rest = {name: old for name, old in policy.tools.items() if name != change.tool}
            return Step(summary, lines, replace(policy, tools=MappingProxyType(rest)))
        if policy.deny_unlisted:
            raise PolicyError(
                f"tool '{safe(change.tool, 80)}' may not have been in the policy before it was disabled: "
                "enabling it would permit everything; edit the file by hand, or enable it on purpose"
            )
    since = microseconds(change.since_ns)
    expected = _with_tool(policy, change.tool, replace(row, enabled=True, since=since))
    return Step(summary, _switch(document, change.tool, "true", since), expected)


def _with_tool(policy: Policy, tool: str, row: ToolPolicy) -> Policy:
    return replace(policy, tools=MappingProxyType({**policy.tools, tool: row}))


def _added_tool(document: Document, tool: str) -> list[Splice]:
    """The splices that remove a tool which `Disable` added on a line of its own; none where it did not."""
    text = document.text
    section_key, section = document.root.pair("tools") or (document.root, document.root)
    key, value = section.pair(tool) or (section, section)
    if section.flow or key.line != value.line or key.odd or value.odd:
        return []
    start, end = line_start(text, key.start), next_line(text, value.end)
    if not text[start:end].rstrip(BREAKS).endswith("}" + ADDED):
        return []
    ranges = [(start, end)]
    above = (line_start(text, section_key.start), next_line(text, section_key.end))
    title = text[above[0] : above[1]].rstrip(BREAKS)
    if len(section.pairs) == 1 and above[1] == start and title.endswith("tools:" + ADDED):
        ranges.append(above)
    return cut_lines(text, ranges)


def _switch(document: Document, tool: str, enabled: str, since: int) -> list[Splice]:
    """Set `enabled` and `since` of a tool that is in the file."""
    section = document.root.get("tools") or document.root
    key, row = section.pair(tool) or (section, section)
    for node in (document.root, section, row):
        editable(document, node)
    moment = quoted(iso(since))
    both = f"enabled: {enabled}, since: {moment}"
    if row.null:
        if row.end > row.start:
            return [Splice(row.start, row.end, f"{{{both}}}")]
        return [behind_colon(document.text, key, f"{{{both}}}")]
    old_enabled, old_since = row.get("enabled"), row.get("since")
    for old in filter(None, (old_enabled, old_since)):
        editable(document, old)
    indent = "" if row.flow else indent_of(document, row)
    separator = ", " if row.flow else newline_of(document) + indent
    splices = []
    if old_since is not None and old_since.start == old_since.end:
        splices.append(behind_colon(document.text, (row.pair("since") or (row, row))[0], moment))
    elif old_since is not None:
        splices.append(Splice(old_since.start, old_since.end, moment))
    if old_enabled is None:
        first = f"enabled: {enabled}" + ("" if old_since else f"{separator}since: {moment}")
        place = row.pairs[0][0].start if row.pairs else row.start + 1
        return [*splices, Splice(place, place, first + (separator if row.pairs else ""))]
    splices.append(Splice(old_enabled.start, old_enabled.end, enabled))
    if old_since is None and row.flow:
        splices.append(Splice(old_enabled.end, old_enabled.end, f"{separator}since: {moment}"))
    elif old_since is None:
        line = line_behind(document.text, old_enabled)
        splices.append(new_line(document, line, f"{indent}since: {moment}"))
    return splices
