"""What `judge_path` promises."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.policy.paths import judge_path, looks_windows
from mcpwatch.policy.verdict import Verdict

ROOTS = ("/app/data/", "/app/public/")
WINDOWS_ROOTS = ("C:\\Data\\", "\\\\server\\share\\in")

A, V, Q, N = Verdict.ALLOWED, Verdict.VIOLATION, Verdict.AMBIGUOUS, Verdict.NOT_EVALUABLE


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        # inside: equal to a root or below it, after collapsing
        ("/app/data", A),
        ("/app/data/", A),
        ("/app/data/a/b.txt", A),
        ("/app/public/x", A),
        ("//app//data/./x", A),
        ("/app/data/a/../b", A),
        ("/app/other/../data/x", A),
        ("/app/data/100%.txt", A),
        ("/app/data/50% off (1).txt", A),
        ("/app/data/Outer$Inner.class", A),
        ("/app/data/routes/$userId.tsx", A),
        ("/app/data/a;b.txt", A),
        ("/app/data/C#/x", A),
        ("/app/data/a\\b", A),
        ("/app/data/naïve … résumé.pdf", A),
        ("/app/data/x~", A),
        ('/app/data/Bob\'s "best".txt', A),
        ("/app/data/" + "x" * 255, A),
        ("/app/data/...", A),
        ("./...", A),
        ("/app/data/a..b", A),
        ("/app/data/a:b", A),
        # outside as written
        ("/etc/passwd", V),
        ("/", V),
        ("/app", V),
        ("/app/data-evil/x", V),
        ("/app/database", V),
        ("/app/DATA/x", V),
        ("/app/data/../../etc/passwd", V),
        ("/app/data/..", V),
        ("/app/data/x\0.txt", V),
        ("/app%2fdata%2fx", V),
        # percent-decoding, to a fixed point, and nothing read as harmless for being nested too deep
        ("/app/data/%2e%2e/%2e%2e/etc/passwd", Q),
        ("/app/data/..%2f..%2fetc%2fpasswd", Q),
        ("/app/data/%252e%252e%252fx/", Q),
        ("/app/data/%2525252525252e", Q),
        ("/app/data/%%32%65%%32%65/x", Q),
        ("/app/data/%u002e%u002e/x", Q),
        ("/app/data/%uff0e%uff0e%u2215etc", Q),
        ("/app/data/%41.txt", A),
        ("/app/data/x%00.txt", Q),
        # overlong UTF-8
        ("/app/data/%c0%ae%c0%ae/x", Q),
        ("/app/data/..%c0%afetc", Q),
        ("/app/data/..%e0%80%afetc", Q),
        ("/app/data/..%25c0%25afetc", Q),
        ("/app/data/\xc0\xae\xc0\xae/x", Q),
        ("/app/data/\udcc0\udcae\udcc0\udcae/x", Q),
        ("/app/data/r%C3%A9sum%C3%A9.pdf", A),
        ("/app/data/é%20x", A),
        # compatibility dots and slashes
        ("/app/data/．．/x", Q),
        ("/app/data/‥/x", Q),
        ("/app/data/..／..／etc", Q),
        ("/app/data/..∕..⁄etc", Q),
        # backslashes, parameters, blanks, filters that run once
        ("/app/data/..\\..\\etc", Q),
        ("/app/data/..;/..;a=1/etc", Q),
        ("/app/data/.. /.. /etc", Q),
        ("/app/data/....//....//etc", Q),
        ("/app/data/..0x2f..0x2fetc", Q),
        ("/app/data/.\n./x", Q),
        ("/app/data/%%32%%65%%32%%65/x", Q),
        ("/app/data/.?/.?/x", Q),
        ("/app/data/what?/x", A),
        # a dot too many, as on old Windows; names that are cut
        ("/app/data/.../x", Q),
        ("/app/data/a/.../x", Q),
        ("/app/data/a/b/.../x", A),
        ("/app/data/..../", Q),
        ("/app/data/…/x", Q),
        ("/app/data/︰/x", Q),
        ("/app/data/" + "x" * 256, Q),
        # what servers strip before they open a path
        (" /etc/passwd", Q),
        ("\ufeff/etc/passwd", Q),
        ("\u200b/etc/passwd", Q),
        (" file:///etc/passwd", Q),
        (" ~/x", Q),
        (" /app/data/x", A),
        ('"/etc/passwd"', Q),
        ("'/etc/passwd'", Q),
        ("/app/data/.''./x", Q),
        ("/app/data/.\u200b./x", Q),
        ("/app/data/.\\./x", Q),
        ("/app/data/.\\/\\.\\.\\/x", Q),
        ("/app/data/％２ｅ％２ｅ/x", Q),
        ("/app/data/資料～案（１）.pdf", A),
        # shells
        ("~/x", Q),
        ("~root/.ssh/id_rsa", Q),
        ("$HOME/.ssh/id_rsa", Q),
        ("/app/data/${HOME}", Q),
        ("/app/data/$HOME/x", Q),
        ("/app/data/$(id)", Q),
        ("/app/data/`id`", Q),
        # drives and shares on a POSIX source
        ("C:\\Windows\\win.ini", Q),
        ("C:/Windows/win.ini", Q),
        ("\\\\host\\share\\x", Q),
        ("\\etc\\passwd", Q),
        # file: URIs
        ("file:///app/data/x", A),
        ("file://localhost/app/data/x", A),
        ("FILE:/app/data/x", A),
        ("file:///etc/passwd", V),
        ("file://evil.com/app/data/x", V),
        ("file:///app/data/%2e%2e/x", V),
        ("file:///app/data/%252e%252e/x", Q),
        ("http://evil.com/x", Q),
        # relative
        ("a/b.txt", A),
        ("./a/../b", A),
        ("a/../../x", V),
        ("..", V),
        ("%2e%2e/x", Q),
        ("%2fetc%2fpasswd", Q),
        # links out of /proc
        ("/proc/self/root/app/data/x", V),
        ("/app/data/proc/self/root/etc", V),
        ("/app/data/proc/1/cwd", V),
        ("/app/data/proc/self/task/7/root/x", V),
        ("/proc/self/root/../../app/data/x", V),
        ("/proc/self/task/../cwd/../../app/data/x", V),
        ("/proc/self/status/../../../app/data/x", A),
        ("/app/data/pro%63/self/root/x", Q),
        ("/app/data/proc/notes/root", A),
        # nothing to judge
        ("", N),
        (None, N),
        (5, N),
        (b"/app/data/x", N),
        (["/app/data/x"], N),
    ],
)
def test_each_way_to_write_a_path_gets_its_verdict(path: object, verdict: Verdict) -> None:
    finding = judge_path(path, ROOTS)
    assert (finding.verdict, finding.aspect) == (verdict, "path"), finding.reason


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/app/data/%2e%2e/x", "inside /app/data/ as written; outside once %2e%2e is decoded"),
        ("/etc/x", "outside /app/data/, /app/public/"),
        ("/app/data/../x", "climbs out of /app/data/ with .."),
        ("a", "relative, no base_dir in the policy (assumed inside)"),
        ("/app/data/%41/%2E%2e/%2e%2e/x", "inside /app/data/ as written; outside once %2e%2e is decoded"),
        ("/app/data/..&#47;x", "inside /app/data/ as written; outside once &#47; is decoded"),
        ("/app/data/．．/x", "inside /app/data/ as written; outside once look-alike characters are folded"),
        ("/app/data/..\\x", "inside /app/data/ as written; outside once backslashes separate"),
        ("/app/data/..;a/x", "inside /app/data/ as written; outside once ; parameters are stripped"),
        ("/app/data/.. /x", "inside /app/data/ as written; outside once blanks are stripped"),
        ("/app/data/..'/x", "inside /app/data/ as written; outside once quotes are stripped"),
        ("/app/data/.?/x", "inside /app/data/ as written; outside once ? matches a dot"),
        ("/app/data/....//x", "inside /app/data/ as written; outside once ../ is filtered out"),
        (
            "/app/data/.../x",
            "inside /app/data/ as written; outside once runs of dots climb, as on old Windows",
        ),
        (
            "/app/data/.\\./x",
            "inside /app/data/ as written; outside once backslashes are dropped, as shells do",
        ),
        (
            "/app/data/..%5cx",
            "inside /app/data/ as written; outside once %5c is decoded and backslashes separate",
        ),
        ("/app/data/x%00.txt", "inside /app/data/ as written; cut short once an escaped NUL is decoded"),
        ("C:/x", "relative (assumed inside) as written; on a drive once read as Windows does"),
        ("http://evil.com/x", "relative (assumed inside) as written; elsewhere once read as a URL"),
    ],
)
def test_the_reason_says_what_is_wrong(path: str, reason: str) -> None:
    assert judge_path(path, ROOTS).reason == reason


@pytest.mark.parametrize(
    ("base_dir", "path", "verdict"),
    [
        ("/app/data", "x", A),
        ("/app/data/a", "../x", A),
        ("/app/data", "../x", V),
        ("/app", "data/x", A),
        ("/app", "x", V),
        ("/app/data", "%2e%2e/x", Q),
        ("/app/data", "%2fetc", Q),
        ("/app/data", "/app/public/x", A),
    ],
)
def test_relative_paths_start_from_the_base_dir(base_dir: str, path: str, verdict: Verdict) -> None:
    assert judge_path(path, ROOTS, base_dir=base_dir).verdict is verdict


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        ("C:\\Data\\x", A),
        ("c:/dATA/x", A),
        ("C:\\Data", A),
        ("\\\\SERVER\\share\\in\\x", A),
        ("\\\\?\\UNC\\server\\share\\in\\x", A),
        ("\\\\?\\C:\\Data\\x", A),
        ("\\\\?\\C:\\Windows\\x", V),
        ("\\\\.\\PhysicalDrive0", V),
        ("\\\\.\\pipe\\x", V),
        ("\\\\?\\GLOBALROOT\\Device\\x", V),
        ("C:\\Data\\x:stream", A),
        ("C:\\Data\\..::$INDEX_ALLOCATION\\x", V),
        ("C:\\Data\\...\\x", Q),
        ("file:///C:/Data/x", A),
        ("C:\\Data\\a\\..\\b", A),
        ("C:\\Data\\..\\x", V),
        ("C:\\Data\\.. \\x", V),
        ("C:\\Database", V),
        ("D:\\Data\\x", V),
        ("C:Data\\x", V),
        ("/etc/passwd", V),
        ("\\\\server\\other\\x", V),
        ("a\\b", A),
        ("..\\x", V),
        ("C:\\Data\\%2e%2e\\x", Q),
        ("C:\\Data\\..%5cx", Q),
    ],
)
def test_windows_paths_are_read_as_windows_does(path: str, verdict: Verdict) -> None:
    finding = judge_path(path, WINDOWS_ROOTS, windows=True)
    assert finding.verdict is verdict, finding.reason


def test_macos_roots_are_compared_without_case() -> None:
    assert judge_path("/users/ANN/docs/x", ("/Users/ann/Docs/",)).fine
    assert judge_path("/users/bob/x", ("/Users/ann/Docs/",)).verdict is V


def test_windows_is_recognised_by_its_roots() -> None:
    assert looks_windows(("C:\\Data",)) and looks_windows(("d:/x",)) and looks_windows(("\\\\h\\s",))
    assert not looks_windows(ROOTS) and not looks_windows(()) and not looks_windows(None)


def test_unrestricted_is_not_applicable_and_an_empty_list_allows_nothing() -> None:
    assert judge_path("/etc/passwd", None).verdict is Verdict.NOT_APPLICABLE
    assert judge_path("/app/data/x", ()).verdict is V
    assert judge_path("x", ()).verdict is V


def test_a_root_of_everything_still_refuses_the_links_of_proc() -> None:
    assert judge_path("/etc/passwd", ("/",)).fine
    assert judge_path("/proc/self/root/etc", ("/",)).verdict is V
    assert judge_path("/dev/fd/3", ("/",)).verdict is V


def test_odd_characters_of_the_root_itself_are_not_held_against_a_path() -> None:
    for root in ("/srv/C#/", "/srv/100%2f/", "/srv/$HOME/", "/srv/a;b/"):
        assert judge_path(root + "x", (root,)).fine
        assert judge_path(root + "%2e%2e/x", (root,)).verdict is Q


def test_an_endless_path_is_never_quietly_allowed() -> None:
    assert judge_path("/app/data/" + "a/" * 9_000, ROOTS).verdict is Q
    assert judge_path("/app/data/" + "%25" * 9_000, ROOTS).verdict is Q


def test_reasons_hold_no_text_of_the_caller() -> None:
    for path in ("/app/data/EVIL%2e%2e/../..", "EVIL/../..", "/EVIL", "/app/data/EVIL\\..\\..\\.."):
        assert "EVIL" not in judge_path(path, ROOTS).reason


COMPONENTS = st.text(
    st.characters(categories=("Ll", "Lu", "Nd"), include_characters=" _-+@,()=."), min_size=1
).filter(lambda part: part.strip(" .") != "" and "0x2" not in part and "0x5" not in part)


@given(st.lists(COMPONENTS, max_size=6))
def test_an_ordinary_path_below_a_root_is_never_flagged(parts: list[str]) -> None:
    finding = judge_path("/app/data/" + "/".join(parts), ROOTS)
    assert finding.verdict is A, finding.reason


SPELL = st.sampled_from(
    ["../", "..\\", "%2e%2e/", "..%2f", "%252e%252e%252f", "..;/", "．．/", "%c0%ae%c0%ae/", "./../"]
)


@given(st.lists(COMPONENTS, max_size=3), st.lists(SPELL, min_size=1, max_size=4), COMPONENTS)
def test_more_climbing_than_depth_is_never_allowed(below: list[str], climbs: list[str], to: str) -> None:
    depth = sum(part not in (".", "..") for part in below)
    path = (
        "/app/data/"
        + "".join(part + "/" for part in below)
        + "".join(climbs)
        + "../" * (depth + 2)
        + "etc/"
        + to
    )
    assert not judge_path(path, ROOTS).fine
    spelled = "/app/data/" + "".join(part + "/" for part in below) + climbs[0] * (depth + 3) + "etc/" + to
    assert not judge_path(spelled, ROOTS).fine


ABOVE = ("/", "/app/", "/app/data/")
ODD = st.sampled_from([*"%;?#&$'\"\\~ .…．", "..", "%2e", "%41", "0x2f", "é", "a", "b.txt"])


@given(st.lists(st.lists(ODD, min_size=1, max_size=4).map("".join), max_size=4))
def test_a_path_that_is_allowed_stays_allowed_under_a_larger_root(parts: list[str]) -> None:
    path = "/app/data/" + "/".join(parts)
    fine = [judge_path(path, (root,)).fine for root in reversed(ABOVE)]
    assert fine == sorted(fine)


@given(st.lists(st.lists(ODD, min_size=1, max_size=4).map("".join), max_size=4), COMPONENTS)
def test_a_plain_name_below_an_allowed_path_is_allowed(parts: list[str], name: str) -> None:
    path = "/app/data/" + "".join(part + "/" for part in parts)
    if judge_path(path, ROOTS).fine:
        finding = judge_path(path + name, ROOTS)
        assert finding.fine, finding.reason


def test_every_character_that_unicode_folds_to_dots_or_separators_is_folded() -> None:
    for code in range(0x80, 0x110000):
        folded = unicodedata.normalize("NFKC", chr(code))
        if set(folded) <= set("./\\"):
            path = (
                f"/app/data/..{chr(code)}..{chr(code)}x"
                if folded in "/\\"
                else f"/app/data/{chr(code) * 2}/x"
            )
            assert judge_path(path, ROOTS).verdict is Q, hex(code)


@pytest.mark.parametrize(
    "name",
    [
        'Q&A; what? 100% "sure" [x] #1 (a\\b) ~v2.txt',
        "it's 5 o'clock; who's there?.md",
        "a%20b%2Bc&d=e?f#g;h.html",
        "$price (50% off) & more; part #2.pdf",
        "report (final)…v2 – “new”.docx",
        "50%25 'a' b\\c;d/0x2e.…e.txt",
        "node_modules/@types/node/index.d.ts",
        "x.y/..z/z../.hidden/last",
    ],
)
def test_names_with_many_odd_characters_are_no_alarm(name: str) -> None:
    finding = judge_path("/app/data/" + name, ROOTS)
    assert finding.fine, finding.reason


HOSTILE = st.lists(
    st.sampled_from(
        [*"/\\.%2eE5cCfFuU0xaA;$~`{(: \0\n#?&", "．", "‥", "\udcc0", "\xc0", "é", "%c0%ae", "../"]
    )
).map("".join)


@given(st.one_of(HOSTILE, st.text(), st.binary(), st.none(), st.floats()), st.booleans(), st.none() | HOSTILE)
def test_no_value_raises(value: object, windows: bool, base_dir: str | None) -> None:
    assert judge_path(value, ROOTS, base_dir=base_dir, windows=windows).aspect == "path"
    assert (
        judge_path(value, (*WINDOWS_ROOTS, "", "data", "~/x", base_dir or ""), windows=windows).aspect
        == "path"
    )
