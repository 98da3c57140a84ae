"""Random policy files as people write them: in every style of YAML, with all that is odd in one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from mcpwatch.policy.edit import quoted
from mcpwatch.times import HOUR, iso

NOW: Final = 1_795_317_247_123_456_000
IDS: Final = (
    "key_0001",
    "yes",
    "# x",
    "a: b",
    "0007",
    "~",
    "é 😀",
    "it's",
    'say "hi"',
    "- a",
    "{}",
    "a,b]",
    "line\nbreak",
)
TOOLS: Final = ("file_read", "shell_execute", "http_request", "yes", "a.b/c", "0007", "x y", "*")
ADDRESSES: Final = ("203.0.113.9", "2001:db8::1", "198.51.100.7")

Pairs = Sequence[tuple[str, str]]


class Writer:
    """Writes one document. Comments on lines of their own are numbered, so that none can go unnoticed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.comments = 0
        self.anchors = 0

    def maybe(self, chance: float = 0.5) -> bool:
        return self.rng.random() < chance

    def text(self, value: str) -> str:
        """A value in one of the ways to quote it."""
        ways = [quoted(value)]
        if "\n" not in value:
            ways.append("'" + value.replace("'", "''") + "'")
        if value.isidentifier() and value not in ("yes", "no"):
            ways.append(value)
        return self.rng.choice(ways)

    def comment(self) -> str:
        """What may stand behind a value."""
        return self.rng.choice(["", "", "", "  # note", " #", "   ", " # é: [{'\"", "  # " + "long " * 60])

    def own_line(self, indent: int) -> list[str]:
        """Lines that may stand between others."""
        if self.maybe(0.75):
            return []
        if self.maybe(0.3):
            return [""]
        self.comments += 1
        column = indent if self.maybe(0.7) else self.rng.choice([0, 1, 7])
        return [" " * column + f"# comment {self.comments}: [1, {{"]

    def key(self, name: str) -> str:
        return name if self.maybe(0.85) else self.rng.choice([f'"{name}"', f"'{name}'"])

    def odd(self, value: str) -> str:
        """Sometimes an anchor or a tag before a value."""
        if self.maybe(0.985):
            return value
        self.anchors += 1
        return self.rng.choice([f"&a{self.anchors} {value}", f"!!str {value}"])

    def braces(self, pairs: Pairs) -> str:
        gap = self.rng.choice(["", "", " "])
        between = self.rng.choice([", ", ", ", ",", " , "])
        colon = self.rng.choice([": ", ": ", ":   "])
        tail = "," if pairs and self.maybe(0.1) else ""
        return "{" + gap + between.join(f"{name}{colon}{value}" for name, value in pairs) + tail + gap + "}"

    def items(self, name: str, entries: Sequence[Pairs]) -> list[str]:
        """A section that is a list."""
        key = self.key(name)
        if not entries:
            return [key + ":" + self.rng.choice(["", " []", " [ ]", " ~", " null", "  []"]) + self.comment()]
        if self.maybe(0.3):
            return self._brackets(key, entries)
        lines, indent = [key + ":" + self.comment()], self.rng.choice([0, 1, 2, 2, 4, 7])
        for pairs in entries:
            lines += self.own_line(indent)
            dash = "-" + " " * self.rng.choice([1, 1, 1, 3])
            if self.maybe(0.6):
                lines.append(" " * indent + dash + self.odd(self.braces(pairs)) + self.comment())
                continue
            inner = " " * (indent + len(dash))
            for number, (field, value) in enumerate(self.rng.sample(list(pairs), len(pairs))):
                lines.append(
                    (" " * indent + dash if number == 0 else inner) + f"{field}: {value}" + self.comment()
                )
        return lines

    def _brackets(self, key: str, entries: Sequence[Pairs]) -> list[str]:
        flows = [self.odd(self.braces(pairs)) for pairs in entries]
        if self.maybe():
            return [
                f"{key}: [" + ", ".join(flows) + self.rng.choice(["", "", " ", ", "]) + "]" + self.comment()
            ]
        indent = " " * self.rng.choice([1, 2, 5])
        lines = [f"{key}: [" + self.comment()]
        for number, flow in enumerate(flows):
            comma = "," if number + 1 < len(flows) or self.maybe(0.3) else ""
            lines.append(indent + flow + comma + self.comment())
        return [*lines, indent + "]" + self.comment()]

    def rows(self, name: str, rows: Sequence[tuple[str, Pairs]]) -> list[str]:
        """A section that is a mapping of mappings."""
        key = self.key(name)
        if not rows:
            return [key + ":" + self.rng.choice(["", " {}", " { }", " ~"]) + self.comment()]
        if self.maybe(0.2):
            flows = [f"{quoted(row)}: {self.braces(pairs)}" for row, pairs in rows]
            return [f"{key}: {{" + ", ".join(flows) + "}" + self.comment()]
        lines, indent = [key + ":" + self.comment()], self.rng.choice([1, 2, 2, 4, 6])
        for row, pairs in rows:
            lines += self.own_line(indent)
            head = " " * indent + self.text(row) + ":"
            if not pairs:
                lines.append(head + self.rng.choice(["", " {}", " ~"]) + self.comment())
            elif self.maybe(0.6):
                lines.append(head + " " + self.odd(self.braces(pairs)) + self.comment())
            else:
                lines.append(head + self.comment())
                inner = " " * (indent + self.rng.choice([1, 2, 3]))
                for field, value in pairs:
                    lines += self.own_line(len(inner))
                    lines.append(inner + f"{field}: {value}" + self.comment())
        return lines

    def moment(self, ns: int) -> str:
        written = iso(ns)
        return self.rng.choice([f'"{written}"', f"'{written}'", written])

    def revoked(self) -> list[str]:
        entries = []
        for _ in range(self.rng.choice([0, 0, 1, 2, 4])):
            kind = self.rng.choice(["key", "key", "client", "session", "subject"])
            pairs = [
                (kind, self.text(self.rng.choice(IDS))),
                ("at", self.moment(NOW - self.rng.randrange(HOUR) * 1_000)),
            ]
            if self.maybe(0.3):
                pairs.append(("until", self.moment(NOW + self.rng.randrange(1, HOUR) * 1_000)))
            if self.maybe():
                pairs.append(
                    ("reason", self.text(self.rng.choice(["leaked", "a: # b", "long " * 200, "über 😀"])))
                )
            entries.append(pairs)
        return self.items("revoked", entries)

    def lockouts(self) -> list[str]:
        entries = []
        for _ in range(self.rng.choice([0, 0, 1, 2, 4])):
            pairs = [("key", self.text(self.rng.choice(IDS[:3])))] if self.maybe() else []
            if not pairs or self.maybe():
                pairs.append(("source_ip", self.text(self.rng.choice(ADDRESSES))))
            at = NOW - self.rng.randrange(1, 60) * 60_000_000_000
            pairs += [("at", self.moment(at)), ("until", self.moment(at + self.rng.randrange(1, 3 * HOUR)))]
            entries.append(pairs)
        return self.items("lockouts", entries)

    def tools(self) -> list[str]:
        rows = []
        for name in self.rng.sample(TOOLS, self.rng.randrange(5)):
            pairs = [("enabled", self.rng.choice(["true", "false", "yes", "off"]))] if self.maybe(0.4) else []
            if self.maybe(0.2):
                pairs.append(("since", self.moment(NOW - HOUR)))
            if self.maybe(0.4):
                pairs.append(("allowed_paths", "[\"/app/data/\", '/x # y/']"))
            if self.maybe(0.3):
                pairs.append(("require_scope", "read"))
            rows.append((name, self.rng.sample(pairs, len(pairs))))
        return self.rows("tools", rows)

    def others(self) -> list[list[str]]:
        """Sections that no change is about, with what a parser can stumble over."""
        found = [
            ["unlisted_tools: " + self.rng.choice(["deny", "allow", '"deny"'])],
            ["keys:", "  key_0001: &shared {client: 'é', scopes: [read]}", "  key_0002: *shared"],
            ["keys: {", "    key_0001: {scopes: [read, # why", "      write]}", "  }"],
            [
                "keys:",
                "  key_0001:",
                "    owner: |",
                "      two lines",
                "      of text  # no comment",
                "",
                "    client: >-",
                "      folded",
                "      text",
            ],
            ["alerts:", "    auth_failures: 4   # more than usual", "    auth_failures_within: 5m"],
            ["lockout: {enforce: false, durations: [5m,", "   15m]}"],
            ["risk_tiers: {high: [\"a\", 'b']}"],
        ]
        names: set[str] = set()
        chosen = []
        for lines in self.rng.sample(found, self.rng.randrange(len(found))):
            name = lines[0].partition(":")[0]
            if name not in names:
                names.add(name)
                chosen.append(lines)
        return chosen

    def document(self) -> bytes:
        """The whole file."""
        if self.maybe(0.03):
            return (
                '{"version": 1, "tools": {"a.b": {}}, "revoked": [], "lockouts": []}' + "\n" * self.maybe()
            ).encode()
        makers: list[Callable[[], list[str]]] = [self.revoked, self.lockouts, self.tools]
        sections = [[self.key("version") + ": 1" + self.comment()], *self.others()]
        sections += [make() for make in makers if self.maybe(0.8)]
        self.rng.shuffle(sections)
        margin = "  " if self.maybe(0.05) else ""
        lines: list[str] = ["%YAML 1.1", "---"] if self.maybe(0.05) else ["---"] if self.maybe(0.1) else []
        for section in sections:
            lines += self.own_line(len(margin))
            lines += [margin + line if line else line for line in section]
        lines += self.own_line(0) + (["..."] if self.maybe(0.05) else [])
        text = "\n".join(lines) + "\n" * (0 if self.maybe(0.2) else 1)
        text = text.replace("\n", "\r\n") if self.maybe(0.2) else text
        return ("\ufeff" if self.maybe(0.1) and not text.startswith("%") else "").encode() + text.encode()
