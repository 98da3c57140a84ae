"""Measures the verdicts on paths and URLs against public corpora: `python -m benchmarks.verdicts FOLDER`.

What it says of a string is one of: flagged (a violation, or ambiguous), or allowed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mcpwatch.policy.paths import judge_path
from mcpwatch.policy.urls import judge_url
from mcpwatch.text import safe

ROOT: Final = "/app/data/"
LEAST_FLAGGED: Final = 0.97
LEAST_NAMES: Final = 30_000

GATHERING: Final = f"""
FOLDER holds, where there is something to measure:
  paths/*.txt              traversal strings, one a line. Public lists: PayloadsAllTheThings ("Directory Traversal"
                           and "File Inclusion", the lists of strings that climb), SecLists (Fuzzing/LFI), fuzzdb
                           (attack/path-traversal, attack/lfi), wfuzz (wordlist/Injections, wordlist/vulns).
  names/*.txt              ordinary paths, one a line: find / -xdev -type f | shuf -n 60000 > FOLDER/names/here.txt
  urls/urltestdata.json    url/resources/urltestdata.json of the web-platform-tests.

Each traversal string is placed below {ROOT} as careless code does, by appending it, and judged as it stands too. A
string without anything that could climb (/etc/passwd, .htaccess) leads nowhere from below a folder and is counted
apart. Comments (# and a blank) are left out. Exit code 1 when a goal is missed.
"""

# Words, single dots and separators: the name of a file, whatever the server does to it.
_PLAIN_NAME: Final = re.compile(r"(?!.*(?:\.\.|\.\\|\\[./\\]))[\w ./\\:{}$@()+,=~-]*", re.ASCII)


class Share(NamedTuple):
    """How many of how many, the strings that were missed, and whether the goal is met (None without one)."""

    what: str
    found: int
    of: int
    misses: list[str]
    met: bool | None = None


def lines_of(folder: Path) -> list[str]:
    """Every different line of a folder's lists, bytes that are no UTF-8 included, as readers of logs give them."""
    lines: dict[str, None] = {}
    for file in sorted(folder.glob("*.txt")):
        text = file.read_bytes().decode("utf-8", "surrogateescape")
        lines.update(dict.fromkeys(line.removesuffix("\r") for line in text.split("\n")))
    return [line for line in lines if line and line != "#" and not line.startswith("# ")]


def flagged(path: str) -> bool:
    """Whether a path is anything but allowed."""
    return not judge_path(path, (ROOT,)).fine


def traversals(folder: Path) -> Iterator[Share]:
    """The share of traversal strings that are noticed."""
    lines = lines_of(folder)
    if not lines:
        return
    climbing = [line for line in lines if not _PLAIN_NAME.fullmatch(line)]
    missed = [line for line in climbing if not flagged(ROOT + line)]
    met = len(climbing) - len(missed) >= LEAST_FLAGGED * len(climbing)
    yield Share(
        "traversal strings below the root flagged", len(climbing) - len(missed), len(climbing), missed, met
    )
    stand = [line for line in climbing if not flagged(line)]
    yield Share("traversal strings as they stand flagged", len(climbing) - len(stand), len(climbing), stand)
    names = [line for line in lines if _PLAIN_NAME.fullmatch(line)]
    stand = [line for line in names if not flagged(line)]
    yield Share("plain names among them, as they stand, flagged", len(names) - len(stand), len(names), stand)


def ordinary_names(folder: Path) -> Iterator[Share]:
    """The ordinary paths that raise a false alarm below the root."""
    names = lines_of(folder)
    if names:
        wrong = [name for name in names if flagged(ROOT + name.lstrip("/"))]
        met = not wrong and len(names) >= LEAST_NAMES
        yield Share("ordinary names below the root flagged", len(wrong), len(names), wrong, met)


def _names_a_host(text: str, base: str | None) -> bool:
    """Whether a case is more than a reference that is relative to its base, or means what its base's scheme says."""
    if re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*:", text):
        return True
    web = base is not None and base.partition(":")[0] in ("http", "https", "ws", "wss")
    return web and re.match(r"\s*[/\\]{2}", text) is not None


def urls(file: Path) -> Iterator[Share]:
    """The accepted URLs that the WHATWG parser sends to another host, or to none.

    Every URL is judged against every host of the file, alone on the list, and its port, and against `*`.
    """
    if not file.exists():
        return
    cases = [case for case in json.loads(file.read_text()) if isinstance(case, dict)]
    hosts = sorted({case["hostname"] for case in cases if case.get("hostname")})
    accepted = 0
    wrong: list[str] = []
    for case in cases:
        text = case["input"]
        if not _names_a_host(text, case.get("base")):
            continue
        port = case.get("port") or "1"
        by = [host for host in hosts if judge_url(text, (host, f"{host}:{port}")).fine]
        if by or judge_url(text, ("*", f"*:{port}")).fine:
            accepted += 1
            host = None if case.get("failure") else case["hostname"]
            if host is None or any(name.rstrip(".") != host.rstrip(".") for name in by):
                wrong.append(f"{text} (accepted for {', '.join(by)}; WHATWG says {host})")
    yield Share("accepted hosts that disagree with WHATWG", len(wrong), accepted, wrong, not wrong)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.verdicts",
        description="Measure the verdicts on paths and URLs against public corpora.",
        epilog=GATHERING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--misses", type=int, nargs="?", const=50, default=0, metavar="N", help="show N of each kind"
    )
    options = parser.parse_args()
    folder: Path = options.folder
    shares = [
        *traversals(folder / "paths"),
        *ordinary_names(folder / "names"),
        *urls(folder / "urls" / "urltestdata.json"),
    ]
    if not shares:
        parser.error(f"{folder}: nothing to measure; --help says how to gather it")
    for share in shares:
        verdict = {True: "met", False: "MISSED", None: ""}[share.met]
        percent = f"{100 * share.found / share.of if share.of else 0:.2f} %"
        print(f"{share.what:50} {share.found:7,} of {share.of:7,}  {percent:>9}  {verdict}".rstrip())
        step = max(1, len(share.misses) // max(1, options.misses))
        for miss in share.misses[::step][: options.misses]:
            print(f"    {safe(miss, 160)}")
    return 1 if any(share.met is False for share in shares) else 0


if __name__ == "__main__":
    sys.exit(main())
