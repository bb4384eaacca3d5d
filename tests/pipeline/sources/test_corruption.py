"""Damaged recordings: a thousand seeded corruptions end in a result or in a sentence, and every frame is accounted for.

    python -m tests.pipeline.sources.test_corruption SEGMENTER CLIP FIRST LAST

runs the corruptions FIRST to LAST of a clip in a process of its own, and says a line before and after each, so that the
one that ends the process, or does not end, is known. `ROADLENS_SEEDS=200` makes two thousand of them.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest

from engines.errors import RoadlensError
from pipeline.config import Config, ModelConfig, StreamConfig, VideoConfig
from pipeline.messages.jsonlines import read_lines
from pipeline.session import Session
from tests.pipeline.recordings import Kitchen, available, hashes

ROOT = Path(__file__).parents[3]
SEEDS = int(os.environ.get("ROADLENS_SEEDS", "100"))
PATIENCE = 60
"""Seconds that one corruption may take on a machine that others load; the slowest takes less than one alone."""

X264 = "-c:v libx264 -preset ultrafast -threads 1"
CLIPS = {
    "plain.mp4": "-i {base} -c copy",
    "late.mp4": f"-i {{base}} {X264} -bf 3 -c:a copy",
    "fragments.mp4": "-i {base} -c copy -movflags frag_keyframe+empty_moov",
    "pcm.mov": "-i {base} -c:v mjpeg -q:v 3 -c:a pcm_s16le",
    "adts.ts": "-i {base} -c copy",
    "motion.avi": "-i {base} -c:v mjpeg -q:v 3 -c:a pcm_s16le",
    "late.avi": "-i {base} -c:v mpeg4 -bf 2 -c:a mp3",
    "hevc.mkv": "-i {base} -c:v libx265 -x265-params log-level=error:pools=none -preset ultrafast -c:a libopus",
    "vorbis.webm": "-i {base} -c:v libvpx -deadline realtime -cpu-used 8 -c:a libvorbis",
    "flash.flv": f"-i {{base}} {X264} -c:a aac",
}


def flip(data: bytearray, chance: random.Random) -> None:
    """Single bits, as storage loses them."""
    for _ in range(2 ** chance.randrange(10)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def overwrite(data: bytearray, chance: random.Random) -> None:
    """Noise, in the middle or at an end."""
    size = min(2 ** chance.randrange(3, 14), len(data) // 2)
    at = chance.choice([0, len(data) - size, chance.randrange(len(data) - size)])
    data[at : at + size] = chance.randbytes(size)


def blank(data: bytearray, chance: random.Random) -> None:
    """Sectors of zeros, as a card that was pulled out leaves them."""
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(data)) // 512 * 512
        size = min(512 * chance.randrange(1, 16), len(data) - at)
        data[at : at + size] = bytes(size)


def cut(data: bytearray, chance: random.Random) -> None:
    """The end, the head or something in between is missing."""
    size = chance.randrange(1, len(data))
    at = chance.choice([len(data) - size, 0, chance.randrange(len(data) - size + 1)])
    del data[at : at + min(size, len(data) - 1)]


def repeat(data: bytearray, chance: random.Random) -> None:
    """A part stands somewhere else again."""
    size = chance.randrange(1, len(data) // 2)
    at = chance.randrange(len(data) - size)
    data[chance.randrange(len(data)) :] += data[at : at + size]


def number(data: bytearray, chance: random.Random) -> None:
    """Sizes and counts in headers that are far off."""
    for _ in range(chance.randrange(1, 9)):
        at = chance.choice([chance.randrange(min(1024, len(data) - 4)), chance.randrange(len(data) - 4)])
        data[at : at + 4] = chance.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\x80\0\0\0"])


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, overwrite, blank, cut, repeat, number)


def damaged(clip: Path, seed: int) -> bytes:
    chance = random.Random(f"{clip.name} {seed}")
    data = bytearray(clip.read_bytes())
    DAMAGES[seed % len(DAMAGES)](data, chance)
    return bytes(data)


def outcome(source: Path, out: Path, segmenter: Path) -> str:
    """How a run ended; asserts that nothing was lost in silence.

    The books are held to the files: as many lines, and as many pictures that a decoder finds in the video, as frames
    that are said to have come out.
    """
    config = Config(
        (StreamConfig(str(source), id="clip"),), (ModelConfig(str(segmenter)),),
        video=VideoConfig(path=out / "o.mp4", preset="ultrafast"), jsonl=str(out / "o.jsonl"),
    )  # fmt: skip
    before = hashes(source.parent)
    try:
        with Session(config) as session:
            result = session.run()
    except RoadlensError:
        return "refused"
    finally:
        assert hashes(source.parent) == before
    counts = result.streams[0].counts
    assert counts.decoded == counts.emitted + counts.dropped.total()
    if result.error is not None:
        assert isinstance(result.error, RoadlensError), repr(result.error)
        return "ended by an error"
    assert sum(1 for _ in read_lines(out / "o.jsonl")) == counts.emitted
    if counts.emitted:
        with av.open(str(out / "o.mp4")) as video:
            assert sum(1 for _ in video.decode(video=0)) == counts.emitted
    return "frames" if counts.emitted else "nothing"


def main(segmenter: Path, clip: Path, first: int, last: int) -> None:
    for seed in range(first, last):
        print(json.dumps({"seed": seed}), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "in", clip.name)
            source.parent.mkdir()
            source.write_bytes(damaged(clip, seed))
            said = outcome(source, Path(folder), segmenter)
        print(json.dumps({"seed": seed, "outcome": said}), flush=True)


def run_apart(segmenter: Path, clip: Path) -> Iterator[tuple[int, str]]:
    """Seeds and outcomes of a clip; fails with the seed whose process was ended, raised or went on for ever."""
    command = [sys.executable, "-m", __name__, str(segmenter), str(clip), "0", str(SEEDS)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        seed = -1
        try:
            while True:
                watch = threading.Timer(PATIENCE, process.kill)
                watch.start()
                line = process.stdout.readline()
                watch.cancel()
                if not line:
                    break
                said = json.loads(line)
                seed = said["seed"]
                if "outcome" in said:
                    yield seed, said["outcome"]
            code = process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        errors.seek(0)
        assert code == 0, f"{clip.name}, seed {seed}: exit code {code}\n{errors.read()[-3000:]}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not available(), reason="ffmpeg and ffprobe are not installed")
def test_a_thousand_damaged_recordings_end_in_a_result_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, segmenter: Path
) -> None:
    folder = tmp_path_factory.mktemp("clips")
    kitchen = Kitchen(folder, folder)
    kitchen.stock()
    clips = [kitchen.ffmpeg(arguments, name) for name, arguments in CLIPS.items()]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda clip: list(run_apart(segmenter, clip)), clips))
    for clip, outcomes in zip(clips, found, strict=True):
        assert [seed for seed, _ in outcomes] == list(range(SEEDS)), clip.name
    ways = Counter(outcome for outcomes in found for _, outcome in outcomes)
    assert ways["frames"] > ways.total() / 4, ways  # what was damaged is worth reading in most


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
