"""JSON lines: whole ones, whatever happens to the process or the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import OutputError, SourceError
from pipeline.messages import composing, headers, wire
from pipeline.messages.jsonlines import JsonLines, complete_lines, read_lines, truncate_lines
from tests.pipeline.fake_analysis import analysis

ROOT = Path(__file__).parents[3]


def test_a_line_is_the_header_of_the_message(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with JsonLines(path) as sink:
        sink.consume(analysis(0))
        sink.consume(analysis(3))
        sink.consume(analysis(0, "other"))
        assert sink.written == 3
    expected = [
        composing.from_analysis(analysis(*of), sequence)
        for of, sequence in (((0, "drive"), 0), ((3, "drive"), 1), ((0, "other"), 0))
    ]
    assert path.read_bytes() == b"".join(wire.to_json(message) + b"\n" for message in expected)
    assert list(read_lines(path)) == expected


def test_every_line_is_in_the_file_before_the_next_one_is_consumed(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "out.jsonl") as sink:
        for count in range(1, 4):
            sink.consume(analysis(count))
            assert complete_lines(tmp_path / "out.jsonl") == count


def test_a_line_stays_short(tmp_path: Path) -> None:
    """Numbers are rounded: two boxes, two areas and two timings are no kilobyte."""
    with JsonLines(tmp_path / "out.jsonl") as sink:
        sink.consume(analysis(2, age=1 / 3, area={"road": 1 / 3, "sky": 2 / 3}, timings={"a": 1 / 3, "b": 10 / 3}))
    assert (tmp_path / "out.jsonl").stat().st_size < 750


def test_a_resumed_run_goes_on_behind_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with JsonLines(path) as sink:
        for index in range(5):
            sink.consume(analysis(index))
    with path.open("ab") as file:
        file.write(b'{"kind":"anal')
    truncate_lines(path, 3)
    with JsonLines(path, append=True, first_sequence={"drive": 3}) as sink:
        sink.consume(analysis(3))
    lines = list(read_lines(path))
    assert [line.sequence for line in lines] == [0, 1, 2, 3]
    assert lines[3].run_start == 3


def test_without_append_a_file_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    JsonLines(path).close()
    assert path.read_bytes() == b""


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=6), torn=st.binary(max_size=9)
)
def test_counting_and_cutting_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], torn: bytes) -> None:
    path = tmp_path_factory.mktemp("lines") / "out.jsonl"
    torn = torn.replace(b"\n", b"")
    for keep in (*range(len(lines) + 1), None):
        path.write_bytes(b"".join(line + b"\n" for line in lines) + torn)
        assert complete_lines(path) == len(lines)
        truncate_lines(path, keep)
        assert path.read_bytes() == b"".join(line + b"\n" for line in lines[:keep])
    with pytest.raises(SourceError, match=f"{len(lines) + 1} were to be kept"):
        truncate_lines(path, len(lines) + 1)


def test_a_torn_last_line_is_left_out_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    line = wire.to_json(composing.from_analysis(analysis(0), 0))
    path.write_bytes(line + b"\n" + line[:-5])
    assert [each.sequence for each in read_lines(path)] == [0]
    path.write_bytes(line + b"\n" + line[:-5] + b"\n")
    with pytest.raises(SourceError, match=r"out\.jsonl, line 2: "):
        list(read_lines(path))
    path.write_bytes(
        wire.to_json(headers.EndMessage(stream="a", sequence=0, frames=0, dropped=0, reason="failed")) + b"\n"
    )
    with pytest.raises(SourceError, match="line 1: not an analysis"):
        list(read_lines(path))


# What goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "no/such/folder/out.jsonl"])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, place: str) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        JsonLines(tmp_path / place)


@pytest.mark.parametrize("function", [complete_lines, lambda path: list(read_lines(path)), truncate_lines])
def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path, function) -> None:
    with pytest.raises((SourceError, OutputError), match="No such file"):
        function(tmp_path / "missing.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with JsonLines("/dev/full", append=True) as sink, pytest.raises(OutputError, match="No space left on device"):
        sink.consume(analysis(0))


UNTIL_IT_IS_FULL = """
import resource, sys
from engines.errors import OutputError
from pipeline.messages.jsonlines import JsonLines
from tests.pipeline.fake_analysis import analysis
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # stands for the disk: the write that passes it is cut short
with JsonLines(sys.argv[1]) as sink:
    try:
        for index in range(100):
            sink.consume(analysis(index))
    except OutputError as error:
        print(sink.written, error)
"""


def test_a_line_that_no_longer_fits_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    ran = subprocess.run(
        [sys.executable, "-c", UNTIL_IT_IS_FULL, path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    written, _, sentence = ran.stdout.partition(" ")
    assert sentence.startswith(f"{path} could not be written further")
    content = path.read_bytes()
    assert 4000 < len(content) <= 5000
    assert content.endswith(b"\n")
    assert [line.sequence for line in read_lines(path)] == list(range(int(written)))


FOR_EVER = """
import itertools, sys
from pipeline.messages.jsonlines import JsonLines
from tests.pipeline.fake_analysis import analysis
one = analysis(0)
with JsonLines(sys.argv[1]) as sink:
    for index in itertools.count():
        sink.consume(one)
"""


@pytest.mark.seconds
def test_a_kill_tears_the_last_line_at_most(tmp_path: Path) -> None:
    """Linux ends a write at a page of memory when its process is killed: seen in one of some twenty kills here."""
    path = tmp_path / "out.jsonl"
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", FOR_EVER, path], cwd=ROOT)
        while not path.exists() or path.stat().st_size < 100_000:
            assert process.poll() is None
        process.kill()
        process.wait()
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        assert whole.endswith(b"}")
        assert len(torn) < max(map(len, whole.split(b"\n")))
        assert [line.sequence for line in read_lines(path)] == list(range(complete_lines(path)))
        truncate_lines(path)
        assert path.read_bytes() == whole + b"\n"
        path.unlink()


TO_STDOUT = """
from engines.errors import OutputError
from pipeline.messages.jsonlines import JsonLines
from tests.pipeline.fake_analysis import analysis
import sys
print("first")
try:
    with JsonLines("-") as sink:
        for index in range(int(sys.argv[1])):
            sink.consume(analysis(index))
    print("last")
except OutputError as error:
    print(error, file=sys.stderr)
"""


def test_a_dash_is_standard_output() -> None:
    ran = subprocess.run([sys.executable, "-c", TO_STDOUT, "2"], cwd=ROOT, capture_output=True, check=True)
    first, *lines, last = ran.stdout.splitlines()
    assert (first, last) == (b"first", b"last")
    assert [wire.decode_header(line).sequence for line in lines] == [0, 1]


def test_a_reader_that_goes_away_is_one_sentence() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TO_STDOUT, "100000"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert b"the reader of - is gone" in process.stderr.read()
    process.wait()
    process.stderr.close()
