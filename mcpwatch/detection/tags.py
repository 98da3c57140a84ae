"""Tags: which entry of which published list of attacks and risks a rule is about, with the lists' versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from mcpwatch.documents.nodes import text
from mcpwatch.documents.tree import Node, NodeError, quote


@dataclass(frozen=True, slots=True)
class Framework:
    """A published list that tags refer to.

    Attributes:
        version: The one that the shipped rules' tags are taken from.
        form: What an entry of it looks like.
        example: A tag that refers to it.
    """

    name: str
    version: str
    form: re.Pattern[str]
    example: str


FRAMEWORKS: Final[Mapping[str, Framework]] = MappingProxyType(
    {
        "owasp-mcp": Framework("OWASP MCP Top 10", "2025", re.compile(r"0[1-9]|10"), "owasp-mcp:02"),
        "owasp-agentic": Framework(
            "OWASP Top 10 for Agentic Applications",
            "2026",
            re.compile(r"ASI(?:0[1-9]|10)"),
            "owasp-agentic:ASI02",
        ),
        "attack": Framework(
            "MITRE ATT&CK", "18", re.compile(r"T\d{4}(?:\.\d{3})?", re.ASCII), "attack:T1059.004"
        ),
        "atlas": Framework(
            "MITRE ATLAS", "5", re.compile(r"AML\.T\d{4}(?:\.\d{3})?", re.ASCII), "atlas:AML.T0051"
        ),
    }
)
"""The lists by the prefix of their tags."""


def tag(node: Node, place: str) -> str:
    """A tag: a list's prefix and an entry in that list's form."""
    found = text(node, place)
    prefix, _, entry = found.partition(":")
    framework = FRAMEWORKS.get(prefix)
    if framework is None or framework.form.fullmatch(entry) is None:
        known = [framework] if framework is not None else FRAMEWORKS.values()
        examples = " or ".join(row.example for row in known)
        raise NodeError(node, f"{place} is no tag: {quote(found)}; write it like {examples}")
    return found
