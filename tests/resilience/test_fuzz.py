"""Settings, recordings, messages and places of any bytes: a value or one sentence, never anything else.

Further tests of HTTP are in tests/pipeline/serve/test_hostile_clients.py, of messages in
tests/pipeline/messages/test_hostile_messages.py. `ROADLENS_FUZZ=1000 pytest -n0 tests/resilience/test_fuzz.py` is the
long form of the coverage-guided ones: a thousand times as many inputs.
"""

from __future__ import annotations

import importlib.util
import os
import random
import struct
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import ModelError, RoadlensError, SourceError, UsageError
from engines.spec import read_spec
from pipeline.archive.find.grammar import parse
from pipeline.archive.journal import FILE, Journal, Known, read_state
from pipeline.archive.positions.fixes import Fix
from pipeline.archive.positions.sidecars import SUFFIXES, UnusableError, fixes_in
from pipeline.config import read_config
from pipeline.messages.headers import AnalysisMessage
from pipeline.messages.recording import read_recording, recover
from pipeline.messages.wire import to_json
from tests.engines.tiny_models import SEGMENTER, bits_model, save
from tests.pipeline.archive import mp4_places as made
from tests.pipeline.archive.test_positions import BEGUN, gpx
from tests.pipeline.conftest import ROOT
from tests.pipeline.messages.test_mcap import one_of_each, written

PIECES = st.sampled_from([
    "streams:", "models:", "- ", "source: ", "rtsp://a:b@c", "[", "]", "{", "}", "\n", "  ", ": ", "&a ", "*a", "!!",
    "<<: ", "null", "1e400", ".nan", "0x", "'", '"', "|", ">", "%YAML 1.2\n---\n", "\t", "\x00", "é", "\ud83d", "...",
    "? ", "# ",
])  # fmt: skip


@pytest.mark.seconds
@settings(max_examples=300)
@given(text=st.lists(PIECES | st.text(max_size=4), max_size=25).map("".join))
def test_any_text_is_a_configuration_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("config") / "roadlens.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(RoadlensError):
        read_config(path)


@settings(max_examples=100)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("config") / "roadlens.yaml"
    path.write_bytes(content)
    with suppress(RoadlensError):
        read_config(path)


@pytest.mark.slow
def test_a_recording_with_any_damage_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    sent = written(tmp_path / "whole.mcap")
    whole = (tmp_path / "whole.mcap").read_bytes()
    dice = random.Random(18)
    for number in range(300):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 1, 4, 40))):
            damaged[dice.randrange(8, len(damaged))] = dice.randrange(256)
        path, target = tmp_path / "a.mcap", tmp_path / f"{number}.mcap"
        path.write_bytes(damaged[: dice.randrange(8, len(whole))] if number % 3 == 0 else damaged)
        got = []
        with suppress(RoadlensError):
            got = [recorded.parts for recorded in read_recording(path)]
        assert len(got) <= len(sent)
        with suppress(RoadlensError):
            recover(path, target)
            target.unlink()


# Guided by coverage ---------------------------------------------------------------------------------------------------
INPUTS = {
    "message": 100_000, "sidecar": 10_000, "positions": 2_000, "recording": 3_000, "configuration": 400, "model": 5_000,
    "lines": 5_000, "expression": 20_000,
}  # fmt: skip
"""Of each target; a second, besides two for the imports."""
CLIP = (
    "1\n00:00:00,000 --> 00:00:00,033\nFrameCnt: 1\n[latitude: 48.1] [longitude: 11.5]\n\n"
    "2\n00:00:01,000 --> 00:00:01,033\nGPS (11.5, 48.1, 20)\n\n"
)


def beginnings(target: str, folder: Path) -> list[bytes]:
    """What a fuzzer begins with: whole inputs of each kind."""
    fixes = [Fix(BEGUN + second, 48.0 + second * 1e-4, 11.5, 11.1, 90.0) for second in range(3)]
    nmea = "\r\n".join(sentence for fix in fixes for sentence in (made.rmc(fix), made.gga(fix))).encode()
    if target == "message":
        return [b"".join(struct.pack(">H", len(part)) + part for part in parts) for _, parts in one_of_each()]
    if target == "sidecar":
        kinds = {"gpx": gpx([(fix.at, fix.latitude) for fix in fixes]).encode(), "nmea": nmea, "srt": CLIP.encode()}
        return [bytes([number]) + kinds[SUFFIXES[each]] for number, each in enumerate(sorted(SUFFIXES))]
    if target == "positions":
        blocks = [made.viofo(fixes[0]), made.akaso(fixes[0]), made.next_base(fixes[0]), made.enciphered(fixes[0])]
        samples = [made.thinkware(fixes[0]), made.ambarella(fixes[0]), made.garmin(fixes[0]), made.drone(fixes[0])]
        return [
            *blocks, *samples, made.box(b"free", made.box(b"gps ", b"[1700000000000]" + nmea)),
            made.box(b"GPS ", *(made.seventymai(fix, second) for second, fix in enumerate(fixes))),
            made.box(b"mdat", *blocks), made.box(b"moov", made.box(b"gps ", bytes(8), struct.pack(">II", 40, 1024)))
            + made.box(b"mdat", blocks[0]),
        ]  # fmt: skip
    if target == "recording":
        written(folder / "whole.mcap", views=False)
        return [(folder / "whole.mcap").read_bytes()]
    if target == "model":
        return [save(bits_model(), SEGMENTER, folder / "bits.onnx").read_bytes()]
    if target == "lines":
        lines = [to_json(header) + b"\n" for header, _ in one_of_each() if isinstance(header, AnalysisMessage)]
        with closing(Journal(folder)) as journal:
            journal.write(Known("00", "/card/a.mp4", 1, "1", "front"))
        return [lines[0], b"".join(lines), (folder / FILE).read_bytes()]
    if target == "expression":
        return [b"person and area.road > 0.3", b"not (count('car') >= 2 or speed < 5) and heading != 3.5e1"]
    return [(ROOT / "deploy" / "roadlens.yaml").read_bytes(), b"streams: [{source: a.mp4}]\nevery: 3\n"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is for Linux on x86-64; extra `dev`")
@pytest.mark.parametrize("target", INPUTS)
def test_nothing_that_leads_to_new_code_leads_to_an_error_that_is_not_promised(target: str, tmp_path: Path) -> None:
    times = float(os.environ.get("ROADLENS_FUZZ", "1"))
    folder = tmp_path / "inputs"
    folder.mkdir()
    for number, content in enumerate(beginnings(target, tmp_path)):
        (folder / str(number)).write_bytes(content)
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.resilience.fuzzing", target, folder, f"-runs={INPUTS[target] * times:.0f}",
            "-seed=18", "-max_len=8192", "-len_control=0", "-rss_limit_mb=2000", f"-artifact_prefix={tmp_path}/",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    print(said[-1500:])
    assert done.returncode == 0, said[-6000:]
    assert "Done " in said


PIECES_OF_TRACKS = [
    "1", "1:", "\n", " ", "1:00:00,000 --> 1\n", "latitude: ", "latitude:1", "GPS (", "GPRMC,", "$GPRMC,1,A", ",", "*",
    '<trkpt lat="1" lon="1">', "<time>", "[1700000000000]",
]  # fmt: skip


@pytest.mark.seconds
@pytest.mark.parametrize("suffix", [".gpx", ".nmea", ".srt"])
@pytest.mark.parametrize("piece", PIECES_OF_TRACKS)
def test_a_side_car_that_repeats_itself_takes_no_time(tmp_path: Path, suffix: str, piece: str) -> None:
    """What grows with the square of a file takes minutes here; a card may bring one of megabytes."""
    path = tmp_path / f"clip{suffix}"
    closing = ("<gpx>", "</trkpt>" * 10_000 + "</gpx>") if piece.startswith("<trkpt") else ("", "")
    path.write_text(closing[0] + piece * (10_000 if any(closing) else 300_000 // len(piece)) + closing[1])
    before = time.process_time()
    with suppress(UnusableError):
        fixes_in(path)
    assert time.process_time() - before < 10


DEEP = "[" * 100_000


def test_what_lies_too_deep_is_one_sentence(tmp_path: Path) -> None:
    """Deeper than Python goes: a fuzzer does not come so far."""
    with pytest.raises(UsageError, match="parentheses"):
        parse("f(" * 3000)
    with closing(Journal(tmp_path)) as journal:
        journal.write(Known("00", "/card/a.mp4", 1, "1", "front"))
    manifest = tmp_path / FILE
    manifest.write_bytes(manifest.read_bytes() + b'{"step":"known","x":' + DEEP.encode() + b"\n{}\n")
    with pytest.raises(SourceError, match="line 2, is damaged"):
        read_state(tmp_path)
    path = save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")
    model = onnx.load(path)
    for each in model.metadata_props:
        each.value = '{"schema": 1, "x": ' + DEEP
    onnx.save(model, path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_spec(path)
