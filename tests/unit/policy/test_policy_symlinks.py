"""Links out of the allowed folders are found on a real disk, whatever else is there."""

from __future__ import annotations

import os
import subprocess
import tempfile
from datetime import date
from pathlib import Path

import pytest

from mcpwatch.policy import symlinks
from mcpwatch.policy.lint import Advice, Subject
from mcpwatch.policy.symlinks import MAX_ENTRIES, scan
from mcpwatch.text import SafeText

TODAY = date(2026, 11, 22)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An allowed folder beside one that is not."""
    for name in ("data/deep/er", "public", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret/key").write_text("x")
    (tmp_path / "data/plain.txt").write_text("x")
    return tmp_path / "data"


def look(
    *roots: object, row: str = "", most: int = MAX_ENTRIES, told: list[int] | None = None
) -> list[Advice]:
    """Scan a policy with one tool whose allowed paths stand on the lines 4, 5, …"""

    def tell(entries: int, folder: SafeText) -> None:
        assert folder.isprintable()
        if told is not None:
            told.append(entries)

    listed = "".join(f"'{root}',\n" for root in roots)
    text = f"version: 1\ntools: {{file_read: {{\nallowed_paths: [\n{listed}], {row}}}}}\n"
    return scan(Subject.of(text.encode(), None, today=TODAY), tell, most=most)


def codes(found: list[Advice]) -> list[tuple[str, int]]:
    return [(item.code, item.line) for item in found]


def test_a_link_out_of_the_folder_is_found_with_the_line_of_its_path(data: Path) -> None:
    (data / "deep/er/out").symlink_to("../../../secret/key")
    (data / "deep/folder").symlink_to(data.parent / "secret")
    found = look(data.parent / "public", data)
    assert codes(found) == [("link-outside", 5)] * 2
    assert {item.severity for item in found} == {"medium"}
    assert f"{data}/deep/er/out leads to {data.parent}/secret/key" in found[0].message
    assert f"{data}/deep/folder leads to {data.parent}/secret," in found[1].message


def test_links_that_stay_inside_are_fine(data: Path) -> None:
    (data / "a").symlink_to("plain.txt")
    (data / "deep/up").symlink_to("..")
    (data / "whole").symlink_to(data)
    (data / "other").symlink_to(data.parent / "public")
    (data / "chain").symlink_to("other/../data/plain.txt")
    assert look(data, data.parent / "public") == []
    assert codes(look(data)) == [("link-outside", 4)], "the other folder is not allowed any more"


def test_a_chain_is_followed_to_its_end(data: Path) -> None:
    (data / "one").symlink_to("two")
    (data / "two").symlink_to("../secret")
    assert [item.message.split()[0] for item in look(data)] == [f"{data}/one", f"{data}/two"]


def test_a_folder_beside_with_the_same_beginning_is_outside(data: Path) -> None:
    (data.parent / "data-evil").mkdir()
    (data / "x").symlink_to("../data-evil")
    assert codes(look(f"{data}/")) == [("link-outside", 4)]


def test_a_link_to_what_is_not_there_yet_is_found(data: Path) -> None:
    """Writing through it would create the file."""
    (data / "new").symlink_to("../secret/not-yet")
    assert codes(look(data)) == [("link-outside", 4)]


def test_circles_end_and_lead_nowhere(data: Path) -> None:
    (data / "self").symlink_to("self")
    (data / "a").symlink_to("b")
    (data / "b").symlink_to("a")
    (data / "deep/parent").symlink_to("../../data")
    assert look(data) == []


def test_a_root_that_is_a_link_stands_for_where_it_leads(data: Path) -> None:
    current = data.parent / "current"
    current.symlink_to("data")
    (data / "a").symlink_to(data / "plain.txt")
    (data / "b").symlink_to(current / "plain.txt")
    assert look(current) == []
    (data / "c").symlink_to("../secret")
    assert codes(look(current)) == [("link-outside", 4)]


def test_one_link_below_two_roots_of_a_tool_is_said_once(data: Path) -> None:
    (data / "deep/out").symlink_to("../../secret")
    assert codes(look(data, data / "deep")) == [("link-outside", 4)]


def test_each_tool_is_judged_by_its_own_folders(data: Path) -> None:
    (data / "out").symlink_to("../secret")
    text = f"""version: 1
tools:
  a: {{allowed_paths: ['{data}']}}
  b: {{allowed_paths: ['{data}', '{data.parent}/secret']}}
  c: {{enabled: false, allowed_paths: ['{data}']}}
  d: {{}}
  e: {{allowed_paths: []}}
"""
    assert codes(scan(Subject.of(text.encode(), None, today=TODAY), lambda *_: None)) == [("link-outside", 3)]


def test_hostile_names_are_shown_safely(data: Path) -> None:
    name = os.fsdecode(b"\x1b[31mred\n\xff\xe2\x80\xae")
    (data / name).symlink_to("/\x1b]0;title\x07")
    [item] = look(data)
    assert item.message.isprintable()
    assert "\\e[31mred\\n" in item.message
    assert "\\e]0;title\\x07" in item.message


def test_what_is_no_folder_of_this_machine_is_said_and_not_scanned(data: Path) -> None:
    absent = data / "absent"
    found = look(absent, "C:\\data", "data/", data / "plain.txt")
    assert codes(found) == [("not-scanned", 4), ("not-scanned", 5), ("not-scanned", 6)]
    assert [item.severity for item in found] == ["low"] * 3
    assert "is not on this machine" in found[0].message
    assert "is no path of this machine" in found[1].message
    assert "is relative" in found[2].message
    assert look("data/", row=f"base_dir: '{data.parent}'") == []


def test_a_path_that_no_system_call_takes_is_no_error(data: Path) -> None:
    text = b'version: 1\ntools: {a: {allowed_paths: ["/a\\0b", "/' + b"x" * 5000 + b'"]}}\n'
    found = scan(Subject.of(text, None, today=TODAY), lambda *_: None)
    assert codes(found) == [("not-scanned", 2)] * 2


def test_folders_that_cannot_be_read_are_counted() -> None:
    """Looked at by a user without rights where the tests run as root, who may read everything."""
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are shut to other users
        data = Path(folder)
        data.chmod(0o755)
        shut = data / "shut"
        shut.mkdir(mode=0)
        (data / "out").symlink_to("../secret")
        if me == 0:
            os.seteuid(65534)
        try:
            found = look(data)
        finally:
            if me == 0:
                os.seteuid(me)
            shut.chmod(0o700)
    assert codes(found) == [("link-outside", 4), ("not-scanned", 4)]
    assert "1 below" in found[1].message
    assert str(shut) in found[1].message


def test_folders_too_deep_for_a_path_are_said_and_no_error(data: Path) -> None:
    home = Path.cwd()
    os.chdir(data)
    try:
        for _ in range(30):
            Path("n" * 200).mkdir()
            os.chdir("n" * 200)
    finally:
        os.chdir(home)
    found = look(data)
    assert codes(found) == [("not-scanned", 4)]
    assert "can't be read" in found[0].message
    subprocess.run(["rm", "-rf", data], check=True)  # Python's own way of removing may give up


def test_other_file_systems_are_not_entered_and_said() -> None:
    device = Path("/dev")
    mounts = [
        path for path in device.iterdir() if path.is_dir() and not path.is_symlink() and path.is_mount()
    ]
    if not mounts or device.stat().st_dev == mounts[0].stat().st_dev:
        pytest.skip("nothing is mounted below /dev")
    said = [item.message for item in look("/dev/") if "other file systems" in item.message]
    assert len(said) == 1
    assert said[0].startswith(f"{len(mounts)} below /dev/")


def test_the_scan_ends_at_its_cap_and_says_so(data: Path) -> None:
    for number in range(20):
        (data / f"f{number}").touch()
    whole = len(list(data.rglob("*")))
    assert look(data, most=whole) == []
    [item] = look(data, most=whole - 1)
    assert (item.code, item.line) == ("not-scanned", 4)
    assert "too many entries" in item.message


def test_the_cap_holds_for_all_folders_together(data: Path) -> None:
    (data.parent / "public/x").touch()
    whole = len(list(data.rglob("*")))
    assert codes(look(data, data.parent / "public", most=whole)) == [("not-scanned", 5)]


def test_many_links_are_counted_after_the_first(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        (data / f"l{number}").symlink_to("/etc")
    monkeypatch.setattr(symlinks, "MAX_SHOWN", 5)
    found = look(data)
    assert len(found) == 6
    assert found[-1].message.startswith("3 further links")
    assert {item.severity for item in found} == {"medium"}
    monkeypatch.setattr(symlinks, "MAX_LINKS", 5)
    assert [item.code for item in look(data)] == ["link-outside"] * 5 + ["not-scanned"]


def test_it_tells_how_far_it_is(data: Path) -> None:
    for number in range(2_500):
        (data / f"f{number}").touch()
    told: list[int] = []
    look(data, told=told)
    assert told == [0, 1_000, 2_000]


def test_everything_is_allowed_below_the_root_of_all(tmp_path: Path) -> None:
    (tmp_path / "etc").symlink_to("/etc")
    assert codes(look(tmp_path)) == [("link-outside", 4)]
    text = f"version: 1\ntools: {{a: {{allowed_paths: ['{tmp_path}', '/']}}}}\n"
    found = scan(Subject.of(text.encode(), None, today=TODAY), lambda *_: None, most=1_000)
    assert "link-outside" not in {item.code for item in found}
