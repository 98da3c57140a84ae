"""Coverage-guided search for input that breaks a promise: `python tests/fuzz/fuzz_verdicts.py -max_total_time=60`.

Needs atheris (`pip install atheris`; not among the project's dependencies). Everything after the name of a target
is for libFuzzer; without a name all targets are tried in turn, chosen by the first byte:

    python tests/fuzz/fuzz_verdicts.py paths -max_total_time=120
"""

from __future__ import annotations

import importlib
import json
import posixpath
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["mcpwatch"]):
    from mcpwatch.event import AuditEvent
    from mcpwatch.filter import FilterError, parse
    from mcpwatch.formats.reader import Reader
    from mcpwatch.policy.judge import Judge
    from mcpwatch.policy.model import Policy, ToolPolicy
    from mcpwatch.policy.paths import judge_path
    from mcpwatch.policy.resources import judge_of_resources
    from mcpwatch.policy.urls import judge_url
    from mcpwatch.policy.verdict import Finding, Verdict
    from mcpwatch.sources.block import Block
    from mcpwatch.text import safe

ROOTS: Final = ("/app/data/", "/srv/C#/")
WINDOWS_ROOTS: Final = ("C:\\Data\\", "\\\\server\\share\\in")
DOMAINS: Final = ("api.openai.com", "*.example.com", "h.test:8443", "10.0.0.5", "[2001:db8::1]:8080")
POLICY: Final = Policy(
    tools={
        "file_read": ToolPolicy(allowed_paths=ROOTS),
        "http_request": ToolPolicy(allowed_domains=DOMAINS),
        "download": ToolPolicy(allowed_paths=ROOTS, allowed_domains=DOMAINS, base_dir="/app/data"),
        "win": ToolPolicy(allowed_paths=WINDOWS_ROOTS),
        "write_pdf": ToolPolicy(allowed_paths=ROOTS),
    }
)
JUDGE: Final = Judge(POLICY)
RESOURCES: Final = judge_of_resources(POLICY)
TOOLS: Final = (*POLICY.tools, "git_add", "get_file_contents", "other")


def _readable(finding: Finding) -> None:
    assert finding.reason == safe(finding.reason, 1_000), "a reason holds text of the caller"


def paths(text: str) -> None:
    """Never raises; what is allowed is inside for Python's own reading too, as written and decoded once."""
    for windows, roots in ((False, ROOTS), (True, WINDOWS_ROOTS)):
        finding = judge_path(text, roots, base_dir=None if windows else "/app/data", windows=windows)
        _readable(finding)
        if finding.verdict is Verdict.ALLOWED and not windows and not text.lower().startswith("file:"):
            for reading in (text, text.replace("\\", "/"), unquote(text, "latin-1"), text.strip()):
                place = posixpath.normpath(posixpath.join("/app/data", reading))
                assert any((place + "/").replace("//", "/").startswith(root) for root in ROOTS), reading


def urls(text: str) -> None:
    """Never raises; the host of what is allowed is on the list for Python's own parser too, where it finds one."""
    finding = judge_url(text, DOMAINS)
    _readable(finding)
    assert judge_url(text, None).verdict in (Verdict.NOT_APPLICABLE, Verdict.VIOLATION)
    if finding.verdict is not Verdict.ALLOWED or "://" not in text or not text.isascii():
        return
    try:
        host = urlsplit(text).hostname
    except ValueError:
        return
    if host and not host[-1].isdigit():
        name = host.removesuffix(".")
        assert name in ("api.openai.com", "h.test", "2001:db8::1") or name.endswith(".example.com"), name


def calls(text: str) -> None:
    """Never raises; what is found is what is explained and is not fine."""
    try:
        params = json.loads(text)
    except (ValueError, RecursionError):
        params = {"path": text, "url": text, "which": [text], "arguments": text}
    tool = TOOLS[len(text) % len(TOOLS)]
    judge = JUDGE.for_tool(tool)
    found = judge.findings(params)
    explained = judge.explain(params)
    if judge.needs_params and isinstance(params, Mapping):
        assert found == tuple(finding for finding in explained if not finding.fine), tool
    RESOURCES.findings({"uri": text})


def filters(text: str) -> None:
    """A filter is understood or refused with advice; one that is understood is written as it was understood."""
    try:
        found = parse(text)
    except FilterError as error:
        assert str(error) == safe(str(error), 10_000)
        return
    for event in _EVENTS:
        for tier in ("high", None):
            assert isinstance(found.match(event, tier), bool)
    assert parse(str(found)) == found


def records(data: bytes) -> None:
    """Every line is counted once, and what is understood can be judged."""
    reader = Reader("a")
    lines = data.split(b"\n")
    events = reader.read(Block("a", lines, 0, 1))
    assert reader.lines == len(lines)
    assert reader.lines == (
        reader.understood + reader.not_understood + reader.blank + reader.repeated + reader.joined
    )
    for event in events:
        JUDGE.for_tool(event.tool or "file_read").findings(event.params)


_EVENTS: Final = [
    AuditEvent(),
    *Reader("a").read(
        Block(
            "a",
            [
                b'{"timestamp":"2026-11-20T08:00:05Z","tool":"file_read","params":{"path":"/etc/x"},"status":"denied",'
                b'"duration_ms":3,"key_id":"key_0001","source_ip":"203.0.113.9","scopes":["read"]}'
            ],
            0,
            1,
        )
    ),
]


def _text(target: Callable[[str], None]) -> Callable[[bytes], None]:
    return lambda data: target(data.decode("utf-8", "surrogateescape"))


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "paths": _text(paths),
    "urls": _text(urls),
    "calls": _text(calls),
    "filters": _text(filters),
    "records": records,
}


def _all(data: bytes) -> None:
    if data:
        (*TARGETS.values(),)[data[0] % len(TARGETS)](data[1:])


def main() -> None:
    """Hand the target to libFuzzer."""
    named = [argument for argument in sys.argv[1:] if argument in TARGETS]
    atheris.Setup(
        [argument for argument in sys.argv if argument not in named], TARGETS[named[0]] if named else _all
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
