"""What the measurement on corpora promises, on vectors of the project's own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

CLIMBS = ["../", "..\\", "..%2f", "..%5c", "%2e%2e/", "%2e%2e%2f", "%252e%252e%252f", "..%c0%af", "..%u2215", "..;/",
          "....//", ".../", "..0x2f", "..／", "．．/", ".\\./", ".''./", "..%00/"]  # fmt: skip
TARGETS = ["etc/passwd", "windows/win.ini", "", "x.txt%00.jpg"]
NAMES = [
    "a.txt",
    "Résumé (final).pdf",
    "100% cotton.md",
    "C#/x.cs",
    "routes/$id.tsx",
    "what?.md",
    "a;b",
    "Bob's.txt",
]
URLS: list[dict[str, object]] = [
    {"input": "https://api.openai.com/x", "base": None, "hostname": "api.openai.com", "port": ""},
    {"input": "https://evil.com\\@api.openai.com/", "base": None, "hostname": "evil.com", "port": ""},
    {"input": "http://0x7f.1/", "base": None, "hostname": "127.0.0.1", "port": ""},
    {"input": "https://api%2Eopenai.com:8443", "base": None, "hostname": "api.openai.com", "port": "8443"},
    {"input": "https://a b/", "base": None, "failure": True},
    {"input": "//h/x", "base": "https://b/", "hostname": "h", "port": ""},
    {"input": "x", "base": "https://b/", "hostname": "b", "port": ""},
]


def fill(folder: Path, climbs: list[str], names: list[str], urls: list[dict[str, object]]) -> None:
    for part in ("paths", "names", "urls"):
        (folder / part).mkdir()
    strings = [climb * depth + target for climb, target, depth in product(climbs, TARGETS, (1, 3))]
    (folder / "paths/own.txt").write_text("# a comment\n" + "\n".join(strings) + "\n/etc/passwd\n", "utf-8")
    (folder / "names/own.txt").write_text("\n".join(names), "utf-8")
    (folder / "urls/urltestdata.json").write_text(json.dumps(["a comment", *urls]), "utf-8")


def measure(folder: Path, *options: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.verdicts", str(folder), *options],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines() or done.stderr.splitlines()


def test_every_own_traversal_is_flagged_no_own_name_is_and_no_url_goes_elsewhere(tmp_path: Path) -> None:
    fill(tmp_path, CLIMBS, [f"{n}/{name}" for n in range(3_750) for name in NAMES], URLS)
    code, lines = measure(tmp_path)
    assert code == 0, lines
    strings = len({climb * depth + target for climb, target, depth in product(CLIMBS, TARGETS, (1, 3))})
    assert [re.sub(r"\s+", " ", line) for line in lines] == [
        f"traversal strings below the root flagged {strings} of {strings} 100.00 % met",
        f"traversal strings as they stand flagged {strings} of {strings} 100.00 %",
        "plain names among them, as they stand, flagged 1 of 1 100.00 %",
        "ordinary names below the root flagged 0 of 30,000 0.00 % met",
        "accepted hosts that disagree with WHATWG 0 of 3 0.00 % met",
    ]


@pytest.mark.parametrize(
    ("climbs", "names", "urls", "missed"),
    [
        (["%2e/"], NAMES, URLS, "traversal strings below the root"),
        (CLIMBS, ["../x"] * 2, URLS, "ordinary names"),
        (CLIMBS, NAMES, URLS, "ordinary names"),
        (CLIMBS, NAMES, [{**URLS[0], "hostname": "evil.com"}, *URLS[1:]], "accepted hosts"),
    ],
)
def test_a_goal_that_is_missed_is_said_and_the_exit_code_is_1(
    tmp_path: Path, climbs: list[str], names: list[str], urls: list[dict[str, object]], missed: str
) -> None:
    fill(tmp_path, climbs, names, urls)
    code, lines = measure(tmp_path, "--misses", "3")
    assert code == 1
    assert any(line.startswith(missed) and line.endswith("MISSED") for line in lines), lines
