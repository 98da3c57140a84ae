"""The rules of a run: those that come with mcpwatch, a site's own, and how the site tunes them."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mcpwatch.detection.rule import Rule, RuleError, RuleSet
from mcpwatch.detection.rulefile import RULE_FILE, parse, shipped
from mcpwatch.detection.tuning import Tuning, tuned
from mcpwatch.documents import read as documents
from mcpwatch.documents.nodes import Day
from mcpwatch.documents.tree import quote
from mcpwatch.documents.watch import Signature, Watch, signature
from mcpwatch.text import SafeText, safe
from mcpwatch.times import utc_midnight

SUFFIXES: Final = (".yaml", ".yml")
"""How the names of rule files end."""


@dataclass(frozen=True, slots=True)
class _File:
    """What one file said when it was last read.

    Attributes:
        data: Its bytes, where they were good.
        found: What they mean; None where they were bad, which `error` explains.
    """

    seen: Signature | None
    data: bytes | None = None
    found: Rule | Tuning | None = None
    error: SafeText | None = None


def _is_rule_file(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith(".")


def files_in(folder: Path) -> list[Path]:
    """The rule files of a folder, by name. Raises RuleError if it can't be listed."""
    try:
        return sorted(path for path in folder.iterdir() if _is_rule_file(path.name))
    except FileNotFoundError:
        raise RuleError(safe(f"{folder}: no such folder: check --rules, or make it")) from None
    except NotADirectoryError:
        raise RuleError(safe(f"{folder}: not a folder: name the one that the rule files are in")) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RuleError(safe(f"{folder}: can't be listed: {reason}")) from None


def _read(path: Path, before: _File | None) -> _File:
    """The file as it is now; the same object as before if it has not changed."""
    seen = signature(path)
    if before is not None and seen is not None and seen == before.seen:
        return before
    try:
        data = documents.read(path, RULE_FILE)
        if before is not None and data == before.data:
            return replace(before, seen=seen)
        return _File(seen, data, parse(data, str(path)))
    except FileNotFoundError:
        return _File(seen, error=safe(f"{path}: gone, or a link that leads nowhere"))
    except RuleError as error:
        return _File(seen, error=safe(error))


class _Assembly:
    """Rules and tunings, put together one after the other."""

    def __init__(self) -> None:
        self.rules = {rule.id: rule for rule in shipped()}
        self._tunings: dict[str, Tuning] = {}

    def take(self, found: Rule | Tuning) -> SafeText | None:
        """Take a rule or a tuning, or say why it can't be: the rules first, then what tunes them."""
        return self._rule(found) if isinstance(found, Rule) else self._tuning(found)

    def _rule(self, rule: Rule) -> SafeText | None:
        other = self.rules.setdefault(rule.id, rule)
        if other is rule:
            return None
        return safe(f"{rule.place}: rule '{rule.id}' is also in {other.place}: give one of them another id")

    def _tuning(self, tuning: Tuning) -> SafeText | None:
        rule = self.rules.get(tuning.rule)
        if rule is None:
            near = difflib.get_close_matches(tuning.rule[:80], self.rules, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "see `rules list`"
            return safe(f"{tuning.place}: no rule {quote(tuning.rule)} to tune; {hint}")
        other = self._tunings.get(rule.id)
        if other is not None:
            return safe(
                f"{tuning.place}: rule '{rule.id}' is tuned in {other.place} too: make one file of both"
            )
        try:
            self.rules[rule.id] = tuned(rule, tuning)
        except RuleError as error:
            return safe(error)
        self._tunings[rule.id] = tuning
        return None

    def disabled(self) -> Iterator[tuple[Rule, SafeText]]:
        """Take out the rules that are switched off, and say which and why."""
        for rule_id, tuning in self._tunings.items():
            if not tuning.enabled:
                yield (
                    self.rules.pop(rule_id),
                    safe(f"{tuning.place}: rule '{rule_id}' is off: {tuning.reason}"),
                )


def _expired(rule: Rule, today: Day) -> Iterator[SafeText]:
    for exception in rule.exceptions:
        if exception.until is not None and exception.until <= utc_midnight(today):
            yield safe(
                f"{exception.place}: exception of rule '{rule.id}' by {exception.author} has expired:"
                " renew it or take it out"
            )


class RuleFiles:
    """The rules in use. A file that breaks never takes away a rule: its last good version goes on.

    Attributes:
        folder: A site's rule files; None is only the shipped rules.
        rules: The rules in use, and what is wrong with the files.
    """

    def __init__(self, folder: Path | None, today: Callable[[], Day]) -> None:
        """Read the files; what is wrong with single ones is in `rules.problems`.

        Args:
            today: Gives the UTC day, against which exceptions are said to have expired.

        Raises:
            RuleError: The folder is missing or no folder, or the installation is broken.
        """
        self.folder = folder
        self._today = today
        self._checking = threading.Lock()
        self._files: dict[Path, _File] = {}
        self._used: dict[Path, Rule | Tuning] = {}
        self._day = today()
        self._unlisted: SafeText | None = None
        if folder is not None:
            self._files = {path: _read(path, None) for path in files_in(folder)}
        self.rules: RuleSet = self._assembled()

    def check(self) -> bool:
        """Look at the files, and read those that may have changed.

        Returns:
            Whether `rules` is another than before.
        """
        if self.folder is None:
            return False
        with self._checking:
            return self._check(self.folder)

    def _check(self, folder: Path) -> bool:
        before = (self._files, self._day, self._unlisted)
        try:
            self._files = {path: _read(path, self._files.get(path)) for path in files_in(folder)}
            self._unlisted = None
        except RuleError as error:
            self._unlisted = safe(error)  # what was read goes on
        self._day = self._today()
        if before == (self._files, self._day, self._unlisted):
            return False
        old, self.rules = self.rules, self._assembled()
        return self.rules != old

    def _assembled(self) -> RuleSet:
        assembly = _Assembly()
        problems = [self._unlisted] if self._unlisted is not None else []
        used: dict[Path, Rule | Tuning] = {}

        def last_good(path: Path) -> Rule | Tuning | None:
            return self._files[path].found or self._used.get(path)

        # a tuning needs its rule to be there
        for path in sorted(self._files, key=lambda path: (isinstance(last_good(path), Tuning), path)):
            file = self._files[path]
            problem = assembly.take(file.found) if file.found is not None else file.error
            now = file.found
            if problem is not None:
                problems.append(problem)
                now = self._used.get(path)
            if now is not None and (problem is None or assembly.take(now) is None):
                used[path] = now
        self._used = used
        disabled = list(assembly.disabled())
        for rule in assembly.rules.values():
            problems.extend(_expired(rule, self._day))
        return RuleSet(
            rules=tuple(assembly.rules.values()),
            problems=tuple(problems),
            disabled=tuple(line for _, line in disabled),
            off=tuple(rule for rule, _ in disabled),
        )

    def watch(self, wake: Callable[[], None]) -> Watch:
        """Call `wake`, in another thread, soon after the files change. Close what this returns."""
        return Watch(self.folder, _is_rule_file, wake, "rules-watch")


def load_rules(folder: Path | None, today: Day) -> RuleSet:
    """The shipped rules with those of a folder, tuned as it says.

    Raises:
        RuleError: The folder is missing or no folder, or the installation is broken.
    """
    return RuleFiles(folder, lambda: today).rules
