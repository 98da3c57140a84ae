"""What the checks of a policy file look at, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final, Literal, TypeVar

from mcpwatch.documents.tree import Document, Node, compose
from mcpwatch.policy.load import POLICY_FILE, interpret
from mcpwatch.policy.model import Policy, Tier, ToolPolicy
from mcpwatch.policy.tiers import tier_of
from mcpwatch.text import SafeText, safe

Severity = Literal["high", "medium", "low"]
SEVERITIES: Final[tuple[Severity, ...]] = ("high", "medium", "low")
"""From the worst."""

Found = Iterator[tuple[int, Severity, str]]
"""What a check finds: line, severity, message. The message need not be safe to show yet."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to look at.

    Attributes:
        line: Line of the policy file.
        code: Short name of the check.
        message: What is wrong and what to do, safe to show.
    """

    line: int
    severity: Severity
    code: str
    message: SafeText


def in_order(found: Iterable[Advice]) -> list[Advice]:
    """Advice by line, on each line the worst first."""
    return sorted(found, key=lambda advice: (advice.line, SEVERITIES.index(advice.severity)))


@dataclass(frozen=True, slots=True)
class Subject:
    """A valid policy file: as text with lines, and as what it means.

    Attributes:
        today: The day that ages and ends are counted to.
    """

    document: Document
    policy: Policy
    today: date
    _index: dict[int, dict[str, tuple[Node, Node]]] = field(default_factory=dict)

    @staticmethod
    def of(data: bytes, path: Path | None, *, today: date) -> Subject:
        """Read a policy file; `path` is for messages.

        Raises:
            PolicyError: The bytes are no valid policy.
        """
        document = compose(data, "policy" if path is None else str(path), POLICY_FILE)
        return Subject(document, interpret(document), today)

    def line(self, *keys: str | int) -> int:
        """Line of what the keys and list numbers lead to, or of the nearest thing above it that is there."""
        node, line = self.document.root, self.document.root.line
        for key in keys:
            if isinstance(key, int):
                if key >= len(node.items):
                    break
                node = node.items[key]
                line = node.line
            else:
                found = self._pairs(node).get(key)
                if found is None:
                    break
                line, node = found[0].line, found[1]
        return line

    def node(self, *keys: str) -> Node | None:
        """The value that the keys lead to, None where the file does not say it."""
        node = self.document.root
        for key in keys:
            found = self._pairs(node).get(key)
            if found is None:
                return None
            node = found[1]
        return node

    def tools(self) -> Iterator[tuple[str, ToolPolicy, Tier]]:
        """Tools that may be called, with their tiers."""
        return (
            (name, row, tier_of(self.policy, name)) for name, row in self.policy.tools.items() if row.enabled
        )

    def _pairs(self, node: Node) -> dict[str, tuple[Node, Node]]:
        # looking through ten thousand keys for each of them would take minutes
        found = self._index.get(id(node))
        if found is None:
            found = self._index[id(node)] = {key.text: (key, value) for key, value in node.pairs}
        return found


def short(text: str) -> SafeText:
    """A name from the file, safe and short enough that the rest of a message is still read."""
    return safe(text, 80)


def shadowed(
    entries: Iterable[str],
    key_of: Callable[[str], Key | None],
    around: Callable[[Key], Iterable[Key]],
    covers: Callable[[str, str], bool],
) -> Iterator[tuple[int, str, str]]:
    """Entries of a list that another one of it covers, in time linear in their number.

    Args:
        key_of: What an entry stands for, equal for equal entries; None where it can't be compared.
        around: What larger entries would stand for, from the nearest.
        covers: Whether the first of two entries covers the second: it has the last word.

    Yields:
        Number of the entry in the list, the entry, and the one that covers it.
    """
    numbered = list(enumerate(entries))
    first: dict[Key, str] = {}
    kept: list[tuple[int, str, Key]] = []
    for number, entry in numbered:
        key = key_of(entry)
        if key is None:
            continue
        if key in first and covers(first[key], entry):
            yield number, entry, first[key]
        else:
            first.setdefault(key, entry)
            kept.append((number, entry, key))
    for number, entry, key in kept:
        outer = next((first[k] for k in around(key) if k in first and covers(first[k], entry)), None)
        if outer is not None:
            yield number, entry, outer
