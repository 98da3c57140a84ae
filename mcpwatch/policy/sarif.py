"""Advice on policy files as a SARIF 2.1.0 log, which code scanning services and editors read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from mcpwatch import __version__
from mcpwatch.policy.advice.subject import Advice, Severity
from mcpwatch.policy.lint import CODES
from mcpwatch.text import SafeText

LEVELS: Final[Mapping[Severity, str]] = {"high": "error", "medium": "warning", "low": "note"}
"""The level of a result by the severity of the advice."""

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HELP: Final = "The message of each result says what to do; docs/policy-file.md lists every check."


def sarif_log(
    found: Sequence[tuple[Path, Sequence[Advice]]], unusable: Sequence[SafeText], folder: Path
) -> dict[str, Any]:
    """The log of one run; equal input gives an equal log, as no time and no machine is in it.

    Args:
        found: Every policy file with the advice on it.
        unusable: What is wrong with files that could not be read or are not valid, one message each.
        folder: Files below it are named relative to it.
    """
    codes = list(CODES)
    results = [
        {
            "ruleId": item.code,
            "ruleIndex": codes.index(item.code),
            "level": LEVELS[item.severity],
            "message": {"text": item.message},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": _location(path, folder),
                        "region": {"startLine": item.line},
                    }
                }
            ],
        }
        for path, advice in found
        for item in advice
    ]
    notes = [{"level": "error", "message": {"text": message}} for message in unusable]
    run = {
        "tool": {"driver": {"name": "mcpwatch", "version": __version__, "rules": [*map(_rule, codes)]}},
        "invocations": [{"executionSuccessful": not notes, "toolExecutionNotifications": notes}],
        "results": results,
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    what = CODES[code]
    return {
        "id": code,
        "shortDescription": {"text": what},
        "fullDescription": {"text": f"The policy has {what}."},
        "help": {"text": _HELP},
    }


def _location(path: Path, folder: Path) -> dict[str, str]:
    # not resolved: a link in the repository is the file that people know
    whole = Path(os.path.abspath(folder / path))  # noqa: PTH100
    base = Path(os.path.abspath(folder))  # noqa: PTH100
    if not whole.is_relative_to(base):
        return {"uri": whole.as_uri()}
    return {"uri": quote(os.fsencode(whole.relative_to(base).as_posix())), "uriBaseId": "%SRCROOT%"}
