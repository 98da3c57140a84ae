"""Checks of allowed_domains: wildcards that swallow too much, entries that match nothing or nothing more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from mcpwatch.policy.advice.subject import Found, Subject, shadowed, short
from mcpwatch.policy.urls import judge_url
from mcpwatch.policy.verdict import Verdict

_DOMAIN: Final = re.compile(
    r"(?:\*\.)?[^\s/?#@*:]+(?::\d{1,5})?|\*(?::\d+)?|\[?[0-9A-Fa-f:.]+\]?(?::\d{1,5})?"
)
_ENTRY: Final = re.compile(
    r"(?:(?:https?|wss?)://)?(?P<star>\*(?:\.|(?=$|[:/?#])))?(?P<name>[^\s/?#@*:]*?)\.?(?::(?P<port>\d{0,5}))?"
    r"(?:[/?#].*)?",
    re.IGNORECASE,
)
_LONGEST: Final = 300
_ANY_LABEL: Final = "any-label-of-a-stranger"

_Entry = tuple[bool, str, str]
"""Whether it is a wildcard, the name below it, the port or nothing."""


def wide_domain(subject: Subject) -> Found:
    """A wildcard over names that strangers can register."""
    for name, row, _ in subject.tools():
        for number, domain in enumerate(row.allowed_domains or ()):
            entry = _entry(domain)
            if entry is None or not entry[0]:
                continue
            base, line = entry[1], ("tools", name, "allowed_domains", number)
            if not base or _is_public()(base):
                what = f"{short(domain)} lets {short(name)} reach hosts that any stranger can run: name the hosts"
                yield subject.line(*line), "high", what
            elif (example := _suffixes_below().get(base)) is not None:
                what = f"{short(domain)} lets {short(name)} reach what strangers run below {example}: name the hosts"
                yield subject.line(*line), "medium", what


def odd_domain(subject: Subject) -> Found:
    """An entry that is no host."""
    for name, row in subject.policy.tools.items():
        for number, domain in enumerate(row.allowed_domains or ()):
            if not _DOMAIN.fullmatch(domain):
                what = f"{short(domain)} is no host: write api.example.com, *.example.com or host:port"
                yield subject.line("tools", name, "allowed_domains", number), "medium", what


def metadata_domain(subject: Subject) -> Found:
    """An entry that allows what is reported as critical all the same."""
    for name, row, _ in subject.tools():
        for number, domain in enumerate(row.allowed_domains or ()):
            if judge_url(domain, (domain,)).critical:
                what = (
                    f"{short(domain)} hands out this machine's credentials, and every call to it is reported as "
                    "critical: remove it"
                )
                yield subject.line("tools", name, "allowed_domains", number), "high", what


def shadowed_domain(subject: Subject) -> Found:
    """An entry that another one of the same list covers."""
    for name, row in subject.policy.tools.items():
        for number, domain, outer in shadowed(row.allowed_domains or (), _entry, _around, _covers):
            what = f"{short(domain)} is covered by {short(outer)} in the same list: remove one of the two"
            yield subject.line("tools", name, "allowed_domains", number), "low", what


def _entry(domain: str) -> _Entry | None:
    match = _ENTRY.fullmatch(domain.strip()) if len(domain) <= _LONGEST else None
    if match is None or not (match["star"] or match["name"]):
        return None
    return match["star"] is not None, match["name"].lower(), match["port"] or ""


def _around(entry: _Entry) -> Iterator[_Entry]:
    _, name, port = entry
    while name:
        name = name.partition(".")[2]
        yield True, name, port
        yield True, name, ""


def _covers(outer: str, inner: str) -> bool:
    """Whether every URL that one entry allows is allowed by another one: the judge says so of such URLs."""
    entry = _entry(inner)
    if entry is None:
        return False
    star, name, port = entry
    host = f"{_ANY_LABEL}.{name}".rstrip(".") if star else name
    urls = [f"{scheme}://{host}{':' + port if port else ''}/" for scheme in ("https", "http")]
    return all(judge_url(url, (outer,)).verdict is Verdict.ALLOWED for url in urls)


@cache
def _is_public() -> Callable[[str], bool]:
    from publicsuffixlist import PublicSuffixList  # ten thousand rules: only for files with wildcards

    # a name that is on no list (`internal`, `lan`) is one that no stranger can register
    return PublicSuffixList(accept_unknown=False).is_public


@cache
def _suffixes_below() -> dict[str, str]:
    """Names that are no public suffix, with one below them that is: `amazonaws.com`, `s3.amazonaws.com`."""
    from publicsuffixlist import PSLFILE

    found: dict[str, str] = {}
    for line in Path(PSLFILE).read_text(encoding="utf-8").splitlines():
        suffix = line.strip()
        if not suffix or suffix.startswith(("//", "!")):
            continue
        name = suffix.partition(".")[2]
        while name:
            # the shortest is the one that people know
            if name not in found or len(suffix) < len(found[name]):
                found[name] = suffix
            name = name.partition(".")[2]
    return found
