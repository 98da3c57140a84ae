"""What `judge_url` promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.policy.urls import judge_url
from mcpwatch.policy.verdict import Verdict

ALLOWED = (
    "api.openai.com",
    "*.example.com",
    "h.test:8443",
    "10.0.0.5",
    "[2001:db8::1]:8080",
    "bücher.example",
)

A, V, Q, N = Verdict.ALLOWED, Verdict.VIOLATION, Verdict.AMBIGUOUS, Verdict.NOT_EVALUABLE


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        # the strict form
        ("https://api.openai.com", A),
        ("https://api.openai.com/v1/chat?x=http://evil.com#@evil.com", A),
        ("HTTPS://API.OpenAI.com.:443/", A),
        ("http://api.openai.com:80/", A),
        ("wss://api.openai.com/", A),
        ("https://api.openai.com#@evil.com/", A),
        ("https://evil.com/api.openai.com", V),
        ("https://evil.com?api.openai.com", V),
        ("https://evil.com#api.openai.com", V),
        ("https://api.openai.com:80/", V),
        ("https://api.openai.com:8443/", V),
        ("https://api.openai.com.evil.com", V),
        ("https://evilapi.openai.com", V),
        ("https://x.api.openai.com", V),
        # a wildcard is one or more labels, and neither the apex nor an address
        ("https://a.example.com", A),
        ("https://a.b.example.com", A),
        ("https://example.com", V),
        ("https://badexample.com", V),
        # host:port
        ("https://h.test:8443/x", A),
        ("https://h.test/", V),
        # addresses
        ("http://10.0.0.5/", A),
        ("http://10.0.0.6/", V),
        ("http://167772165/", A),
        ("http://[2001:db8::1]:8080/", A),
        ("http://[2001:0db8:0::1]:8080/", A),
        ("http://[2001:db8::1]/", V),
        ("http://10.0.0.261/", Q),
        ("http://10.0.0.5167772165/", Q),
        ("http://10.0.0.5%40evil.com:x/", V),
        ("http://[2001:db8::1]%40evil.com:8080/", V),
        ("http://2001:db8::1%40evil.com/", V),
        ("https:1", V),
        # punycode that spells no name
        ("https://xn--a.example.com/", Q),
        # bare hosts
        ("api.openai.com", A),
        ("api.openai.com:443", A),
        ("api.openai.com/v1", A),
        ("//api.openai.com/v1", A),
        ("evil.com", V),
        ("localhost:8080", V),
        ("0x7f.1", V),
        ("2130706433", V),
        # user information and other schemes are never allowed
        ("https://user@api.openai.com/", Q),
        ("https://api.openai.com@evil.com/", V),
        ("https://api.openai.com:443@evil.com/", V),
        ("file:///etc/passwd", V),
        ("ftp://api.openai.com/", V),
        ("javascript:alert(1)", V),
        ("gopher://api.openai.com/", V),
        # read differently by different programs
        ("https://evil.com\\@api.openai.com/", Q),
        ("https://api.openai.com\\@evil.com/", Q),
        ("https:/evil.com", V),
        ("https:evil.com", V),
        ("https:///evil.com", V),
        ("https:/api.openai.com", Q),
        ("https://api%2Eopenai%2Ecom", Q),
        ("https://api.open\tai.com/", Q),
        ("https://ev\til.com/", V),
        ("https://evil.com#@api.openai.com:x/", V),
        ("https://api.openai.com%2f.evil.com/", Q),
        ("https://evil.com%2f.example.com/", Q),
        ("https://evil.com／.example.com/", V),
        ("https://evil.c℀.example.com/", V),
        ("https://api.openai.com../", V),
        # oddly spelled, yet the same host to everybody
        ("  https://api.openai.com/  ", A),
        ("https://api.openai.com/a b\\c", A),
        ("https://ａpi.openai.com/", A),
        ("https://api。openai。com/", A),
        ("https://bücher.example/", A),
        ("https://xn--bcher-kva.example/", A),
        # look-alikes
        ("https://аpi.openai.com/", V),
        ("https://api.openaı.com/", V),
        # no host at all
        ("/v1/chat", N),
        ("", N),
        ("  ", N),
        (None, N),
        (2130706433, N),
        (b"https://api.openai.com", N),
    ],
)
def test_each_way_to_write_a_url_gets_its_verdict(url: object, verdict: Verdict) -> None:
    finding = judge_url(url, ALLOWED)
    assert (finding.verdict, finding.aspect, finding.critical) == (verdict, "domain", False), finding.reason


METADATA = [
    "http://169.254.169.254/latest/meta-data/",
    "169.254.169.254",
    "169.254.169.254:80",
    "http://169.254.1.1/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[::169.254.169.254]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:1:2:3:4:5601:5601]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1]/",
    "http://[fd00:ec2::254]/",
    "fd00:ec2::254",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0251.0376.0251.0376/",
    "http://169.16689662/",
    "http://425.510.425.510/",
    "http://１６９.２５４.169.254/",
    "http://①⑥⑨.254.169.254/",
    "http://169。254。169。254/",
    "http://169%2e254.169.254/",
    "http://169.254.169.254.nip.io/",
    "http://x.169-254-169-254.sslip.io/",
    "http://a9fea9fe.nip.io/",
    "http://x-A9FEA9FE.nip.io/",
    "http://fd00-ec2--254.sslip.io/",
    "http://--ffff-a9fe-a9fe.sslip.io/",
    "http://metadata.google.internal/",
    "http://METADATA.google.internal./",
    "http://metadata/",
    "http://100.100.100.200/",
    "http://user@169.254.169.254/",
    "http://169.254.169.254\\@api.openai.com/",
    "http:169.254.169.254",
    "gopher://169.254.169.254/",
    "http://169.254.169.\n254/",
]


@pytest.mark.parametrize("url", METADATA)
@pytest.mark.parametrize(
    "allowed", [None, (), ("*",), ALLOWED, ("169.254.169.254", "metadata.google.internal")]
)
def test_metadata_and_link_local_are_critical_whatever_is_allowed(
    url: str, allowed: tuple[str, ...] | None
) -> None:
    finding = judge_url(url, allowed)
    assert (finding.verdict, finding.critical) == (V, True)


@pytest.mark.parametrize(
    "value", ["https://example.com", "hello", "metadata", "x", 5, None, "http://170.254.1.1"]
)
def test_an_unrestricted_tool_is_judged_for_nothing_else(value: object) -> None:
    assert judge_url(value, None).verdict is Verdict.NOT_APPLICABLE


def test_an_empty_list_allows_nothing_and_a_star_every_name_but_no_address() -> None:
    assert judge_url("https://api.openai.com", ()).verdict is V
    assert judge_url("https://api.openai.com", ("*",)).fine
    assert judge_url("https://8.8.8.8", ("*",)).verdict is V
    assert judge_url("https://8.8.8.8", ("*.8.8.8.8",)).verdict is V


def test_reasons_hold_no_text_of_the_caller() -> None:
    for url in (
        "https://evil.com",
        "evil:x",
        "https://evil@api.openai.com",
        "https://evil.com\\@api.openai.com",
    ):
        assert "evil" not in judge_url(url, ALLOWED).reason


HOSTILE = st.lists(
    st.sampled_from(
        [*"htps:/\\@#?.%[]019xfea-* \t\0*", "https://", "api.openai.com", "。", "ß", "℀", "\ud800"]
    )
).map("".join)


@given(
    st.one_of(HOSTILE, st.text(), st.binary(), st.none(), st.integers()),
    st.lists(HOSTILE | st.text(), max_size=3),
)
def test_no_value_and_no_entry_raises(value: object, allowed: list[str]) -> None:
    assert judge_url(value, tuple(allowed)).aspect == "domain"
    assert judge_url(value, None).aspect == "domain"


LABEL = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)


@given(
    st.lists(LABEL, min_size=1, max_size=4).map(".".join),
    st.sampled_from(["", "/", "/x", "?q", "#@api.openai.com", "/@h"]),
)
def test_a_plain_url_is_allowed_exactly_when_its_host_is(host: str, rest: str) -> None:
    assert judge_url(f"https://{host}{rest}", (host,)).verdict is A
    assert judge_url(f"https://{host}.evil.test{rest}", (host,)).verdict is V
    assert judge_url(f"https://evil{host}{rest}", (host,)).verdict is V


@given(HOSTILE)
def test_a_host_that_is_not_listed_is_never_allowed(rest: str) -> None:
    if "api.openai.com" not in rest:
        assert not judge_url("https://evil.test" + rest, ("api.openai.com",)).fine
