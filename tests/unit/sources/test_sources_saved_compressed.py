"""Compressed logs: all that can be read of them is read, where they are broken is said, and none fills the memory."""

from __future__ import annotations

import gzip
import os
import random
import re
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.sources import compressed
from mcpwatch.sources.block import Block, SourceError
from mcpwatch.sources.compressed import CHUNK, CompressedStream, compression_of
from mcpwatch.sources.saved import SavedLog, open_saved

TEXT = "".join(f'{{"n":{n},"text":"{random.Random(n).getrandbits(200)}"}}\n' for n in range(20_000)).encode()
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
SKIPPABLE = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
BOTH = pytest.mark.parametrize("kind", PACK)


def one(path: Path) -> SavedLog:
    (log,) = open_saved([path])
    return log


def read(path: Path) -> list[bytes]:
    return [text for block in one(path).blocks() for text in block.lines]


def read_all(data: bytes, folder: Path) -> tuple[bytes, str]:
    """What a stream gives, and how it complains."""
    path = folder / "packed"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    found = bytearray()
    try:
        stream = CompressedStream(fd, path)
        while piece := stream.read():
            assert len(piece) <= CHUNK
            found += piece
        assert stream.consumed == len(data)
    except SourceError as error:
        return bytes(found), str(error)
    finally:
        os.close(fd)
    return bytes(found), ""


def broken(path: Path) -> tuple[list[Block], str]:
    """The blocks of a log that is broken, and what is said of it."""
    blocks: list[Block] = []
    with pytest.raises(SourceError) as caught:
        blocks.extend(one(path).blocks())
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()
    return blocks, str(caught.value)


@BOTH
def test_every_line_comes_with_its_place_whatever_the_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(PACK[kind](TEXT))
    log = one(path)
    blocks = list(log.blocks())
    assert [line for block in blocks for line in block.lines] == TEXT.split(b"\n")[:-1]
    for block in blocks:
        assert TEXT.startswith(block.lines[0] + b"\n", block.offset)
        assert block.line == TEXT[: block.offset].count(b"\n") + 1
        assert block.written_ns == path.stat().st_mtime_ns
    assert log.progress == log.size == path.stat().st_size
    assert not log.seekable
    start = TEXT.index(b"\n", 700_000) + 1
    assert next(log.blocks(start, None)).offset == start


def test_what_zstd_itself_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(TEXT)
    for options in (["-1"], ["-19", "--long=27"], ["--no-check"], ["--adapt"], ["-3", "--no-content-size"]):
        packed = tmp_path / "a.zst"
        command = ["zstd", "-q", "-f", *options, str(tmp_path / "a.jsonl"), "-o", str(packed)]
        subprocess.run(command, check=True)
        assert read(packed) == TEXT.split(b"\n")[:-1], options


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_set_of_compressed_copies_is_one_log(tmp_path: Path, suffix: str) -> None:
    pack = PACK["gzip" if suffix == "gz" else "zstd"]
    for number, text in ((2, b"a\n"), (1, b"b\n")):
        (tmp_path / f"a.jsonl.{number}.{suffix}").write_bytes(pack(text))
    (tmp_path / "a.jsonl").write_bytes(b"c\n")
    (log,) = open_saved(sorted(tmp_path.iterdir()))
    assert [text for block in log.blocks() for text in block.lines] == [b"a", b"b", b"c"]
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(pack(b"d\n"))
    assert len(open_saved([tmp_path / "a.jsonl", tmp_path / f"a.jsonl.{suffix}"])) == 1


@pytest.mark.parametrize("lines", [30, 19_000])
def test_broken_gzip_gives_all_before_the_break_and_names_the_byte(tmp_path: Path, lines: int) -> None:
    deflate = zlib.compressobj(wbits=31)
    good = b"".join(TEXT.splitlines(keepends=True)[:lines])
    packed = deflate.compress(good) + deflate.flush(zlib.Z_FULL_FLUSH)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed + b"\xff" * 4_000)  # no deflate block begins so
    blocks, message = broken(path)
    assert f"is broken at byte {len(packed)} of the gzip data" in message
    assert [line for block in blocks for line in block.lines] == good.split(b"\n")[:-1]


@pytest.mark.parametrize("lines", [30, 19_000])
def test_broken_zstd_gives_all_before_the_break_and_names_the_byte(tmp_path: Path, lines: int) -> None:
    frame = zstd.ZstdCompressor()
    good = b"".join(TEXT.splitlines(keepends=True)[:lines])
    packed = frame.compress(good) + frame.flush(frame.FLUSH_BLOCK)
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(packed + b"\xff" * 4_000)  # a block header of the reserved type
    blocks, message = broken(path)
    at = int(re.findall(r"is broken at byte (\d+) of the zstd data", message)[0])
    assert len(packed) <= at < len(packed) + 3
    assert [line for block in blocks for line in block.lines] == good.split(b"\n")[:-1]


@BOTH
def test_a_changed_byte_is_never_taken_for_data(kind: str, tmp_path: Path) -> None:
    packed = bytearray(PACK[kind](TEXT))
    if kind == "zstd":
        packed = bytearray(zstd.compress(TEXT, options={zstd.CompressionParameter.checksum_flag: 1}))
    packed[len(packed) // 2] ^= 0x55
    path = tmp_path / "a.jsonl"
    path.write_bytes(packed)
    assert "is broken at byte" in broken(path)[1]


@BOTH
@pytest.mark.parametrize("cut", [1, 4, 100_000])
def test_a_file_that_ends_early_says_so_after_all_that_is_there(kind: str, tmp_path: Path, cut: int) -> None:
    packed = PACK[kind](TEXT)[:-cut]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed)
    blocks, message = broken(path)
    assert f"is cut short: its {kind} data ends at byte {len(packed)}" in message
    got = b"\n".join(line for block in blocks for line in block.lines)
    assert TEXT.startswith(got)
    assert len(got) > len(TEXT) * (0.6 if cut > 4 else 0.9)
    assert blocks[-1].unterminated == (got + b"\n" != TEXT[: len(got) + 1])


def test_a_broken_file_of_a_set_costs_only_itself(tmp_path: Path) -> None:
    """What follows in the later files is read, without line numbers; what is broken is said at the end, all of it."""
    (tmp_path / "a.jsonl.3.gz").write_bytes(gzip.compress(b"one\ntwo\nthr")[:-9])
    (tmp_path / "a.jsonl.2.gz").write_bytes(gzip.compress(b"four\n")[:-2])
    (tmp_path / "a.jsonl.1").write_bytes(b"five\nsix\n")
    (tmp_path / "a.jsonl").write_bytes(b"seven\n")
    (log,) = open_saved(sorted(tmp_path.iterdir()))
    got: list[tuple[bytes, int | None]] = []
    with pytest.raises(SourceError) as caught:
        for block in log.blocks():
            got += [(line, block.line_at(index)) for index, line in enumerate(block.lines)]
    assert [line for line, _ in got][-3:] == [b"five", b"six", b"seven"]
    assert got[:2] == [(b"one", 1), (b"two", 2)]
    assert got[-1][1] is None
    assert str(caught.value).count("cut short") == 2
    assert log.progress == log.size


def test_members_frames_padding_and_frames_without_data_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(TEXT[:50_001]) + gzip.compress(TEXT[50_001:]) + b"\0" * 70_000)
    assert read(path) == TEXT.split(b"\n")[:-1]
    path.write_bytes(gzip.compress(b"a\n") + b"rubbish")
    assert re.search(r"is broken at byte 2\d ", broken(path)[1])
    path.write_bytes(SKIPPABLE + zstd.compress(TEXT[:50_001]) + SKIPPABLE + zstd.compress(TEXT[50_001:]))
    assert read(path) == TEXT.split(b"\n")[:-1]
    path.write_bytes(zstd.compress(b"a\n") + b"rubbish")
    blocks, message = broken(path)
    assert ([block.lines for block in blocks], "is broken at byte" in message) == ([[b"a"]], True)
    path.write_bytes(SKIPPABLE[:-1])
    assert "cut short" in broken(path)[1]


@pytest.mark.parametrize("pack", [lambda data: gzip.compress(data, 9), zstd.compress])
def test_a_decompression_bomb_is_stopped_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(compressed, "MAX_BEFORE_RATIO", 1 << 22)
    monkeypatch.setattr(compressed, "MAX_RATIO", 900)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(pack(b"\n" * (1 << 25)))
    log = one(path)
    tracemalloc.start()
    with pytest.raises(SourceError, match="bomb"):
        for _ in log.blocks():
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20


@pytest.mark.parametrize("exponent", [18, 21, 31])
def test_a_frame_that_wants_more_memory_than_128_mib_gets_none(tmp_path: Path, exponent: int) -> None:
    """256 MiB, 2 GiB and 2 TiB: refused by its header, before a byte is allocated."""
    path = tmp_path / "a.zst"
    path.write_bytes(zstd.compress(b"a\n") + b"\x28\xb5\x2f\xfd\x00" + bytes([exponent << 3]) + b"\x01\0\0")
    blocks, message = broken(path)
    assert [block.lines for block in blocks] == [[b"a"]]
    assert re.search(r"window of more than 128 MiB of memory at byte \d+; .*--long=31", message)


def test_zstd_without_its_library_is_one_line_that_says_what_to_install(tmp_path: Path) -> None:
    """In a process of its own, in which the library can't be imported; what needs none of it is read as ever."""
    (tmp_path / "a.jsonl.zst").write_bytes(zstd.compress(b"a\n"))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"tool":"t"}\n'))
    program = (
        "import sys; sys.modules['backports.zstd'] = sys.modules['compression.zstd'] = None\n"
        "from mcpwatch.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "replay", "--json", "--state", "state"]
    done = subprocess.run([*command, "a.jsonl.zst"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert "a.jsonl.zst: is compressed with zstd" in line
    assert "pip install 'mcpwatch-console[zstd]'" in line
    done = subprocess.run([*command, "a.jsonl.gz"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0


def test_a_name_makes_no_compressed_file(tmp_path: Path) -> None:
    for text in (b"", b"a\n"):
        assert read_all(text, tmp_path)[1].endswith(
            "is empty, which no compressed file is"
            if not text
            else "is neither gzip nor zstd, whatever its name says"
        )
        (tmp_path / "a.jsonl.zst").write_bytes(text)
        assert read(tmp_path / "a.jsonl.zst") == text.split(b"\n")[:-1]


pieces = st.lists(st.binary(max_size=400) | st.integers(0, 400_000).map(lambda n: b"ab\n" * n), max_size=3)


@BOTH
@settings(max_examples=60, deadline=None)
@given(pieces, st.data())
def test_a_file_cut_or_changed_anywhere_gives_a_beginning_of_what_was_in_it_or_says_that_it_is_broken(
    kind: str, tmp_path_factory: pytest.TempPathFactory, members: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    whole = b"".join(PACK[kind](member) for member in members) or PACK[kind](b"")
    assert read_all(whole, folder) == (b"".join(members), "")
    cut = data.draw(st.integers(0, len(whole)))
    found, message = read_all(whole[:cut], folder)
    assert b"".join(members).startswith(found)
    assert message or found == b"".join(members) or cut < len(whole)
    changed = bytearray(whole)
    at = data.draw(st.integers(0, len(whole) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    found, message = read_all(bytes(changed), folder)
    assert message == "" or re.search(r"packed: (is|wants|grew)", message)
    if kind == "gzip" and not message:
        assert b"".join(members).startswith(found)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_whatever_the_bytes_reading_ends_and_complaints_are_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    for head in (b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b""):
        _, message = read_all(head + data, folder)
        assert message.isprintable()
        assert bool(message) or compression_of(head + data) is not None
