"""Class maps that hold still where the picture does: known answers, what must hold of any footage, and the command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

import pipeline
from engines.classes import CITYSCAPES_CLASSES
from engines.engine import Prediction
from engines.errors import UsageError
from engines.spec import ModelSpec
from pipeline.analysis.fuse import FuseOptions, Fuser
from pipeline.analysis.smoothing import LEAST_WEIGHT, LONGEST_GAP, SmoothingOptions, TemporalSmoother
from pipeline.config import Config, ModelConfig, StreamConfig, config_schema, read_config
from pipeline.drawing import anonymize
from pipeline.drawing.anonymize import AnonymizeOptions, AnonymizeStage
from pipeline.frame import Frame
from pipeline.messages.composing import from_analysis
from pipeline.pictures.inputs import network_input
from pipeline.session import Session
from pipeline.session.fingerprint import fingerprints
from tests.footage import write_clip
from tests.pipeline.conftest import json_lines

UInt8 = NDArray[np.uint8]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

SIZE = (24, 32)
STILL = np.full((*SIZE, 3), 90, np.uint8)
ROAD, CAR, PERSON = 0, 13, 11
ID = {info.name: info.id for info in CITYSCAPES_CLASSES}


def seen(class_id: int) -> UInt8:
    """Road, and one 4×4 block of a class."""
    class_map = np.zeros(SIZE, np.uint8)
    class_map[8:12, 8:12] = class_id
    return class_map


def shown(looks: Sequence[int], fps: float = 25, hold: float = 0.12, sure: int | None = None) -> list[int]:
    """What a smoother shows of a block whose class is `looks`, on a still picture."""
    smoother = TemporalSmoother(SmoothingOptions(hold))
    confidence = None if sure is None else np.full(SIZE, sure, np.uint8)
    maps = [smoother.smooth(seen(look), confidence, STILL, i / fps)[0] for i, look in enumerate(looks)]
    assert all((m[8:12, 8:12] == m[8, 8]).all() and not m[:8].any() for m in maps)
    return [int(m[8, 8]) for m in maps]


# Known answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "looks", "expected"),
    [
        ("one look away", [0, 0, 0, 13, 0, 0], [0, 0, 0, 0, 0, 0]),
        ("two looks away", [0, 0, 0, 13, 13, 0], [0, 0, 0, 0, 0, 0]),
        ("it stays: shown from the third look on", [0, 0, 0, 13, 13, 13, 13], [0, 0, 0, 0, 0, 13, 13]),
        ("every other look, for ever", [0, 0] + [13, 0] * 20, [0] * 42),
        ("seen once only, it goes sooner", [13, 0, 0, 0], [13, 13, 0, 0]),
        ("contradicted by two others in turn", [0, 0, 0, 13, 11, 13, 11], [0, 0, 0, 0, 0, 13, 13]),
        ("two of three looks are right in the end", [0, 0, 0] + [13, 13, 0] * 4, [0] * 7 + [13] * 8),
    ],
)
def test_a_class_is_shown_once_it_was_seen_for_long_enough(what: str, looks: list[int], expected: list[int]) -> None:
    assert shown(looks) == expected, what


@pytest.mark.parametrize(
    ("fps", "late"),
    [(100, 12), (60, 7), (25, 2), (12.5, 1), (8, 0), (4, 0), (1, 0)],
    ids=lambda value: str(value),
)
def test_it_goes_by_time_and_not_by_frames(fps: float, late: int) -> None:
    """`hold` is 0.12 s; the look that brings it about is counted for the time since the one before."""
    result = shown([0] * 40 + [13] * 20, fps)
    assert result == [0] * (40 + late) + [13] * (20 - late)
    assert late / fps <= 0.12 + 1e-9


@pytest.mark.parametrize(
    ("sure", "late"), [(None, 2), (255, 2), (204, 3), (128, 5), (77, 9), (0, 9)], ids=lambda value: str(value)
)
def test_the_less_sure_it_is_the_longer_it_takes(sure: int | None, late: int) -> None:
    assert shown([0] * 10 + [13] * 15, sure=sure) == [0] * (10 + late) + [13] * (15 - late)


@pytest.mark.parametrize(("levels", "late"), [(0, 2), (4, 1), (8, 0), (60, 0), (-60, 0)])
def test_where_the_picture_changes_the_class_may_at_once(levels: int, late: int) -> None:
    smoother, maps = TemporalSmoother(SmoothingOptions()), []
    for index in range(12):
        picture = STILL.copy()
        if index >= 8:
            picture[4:16, 4:16] = 90 + levels * (1 if index == 8 else (-1) ** index)
        maps.append(smoother.smooth(seen(13 if index >= 8 else 0), None, picture, index / 25)[0])
    # Twice the levels from the ninth look to the tenth: the first look is what is asked about.
    assert [bool(m[8:12, 8:12].all()) for m in maps[8:]] == [late == 0, late <= 1 or levels > 0, True, True]


def test_a_moving_edge_with_contrast_does_not_lag() -> None:
    smoother = TemporalSmoother(SmoothingOptions())
    for index in range(12):
        class_map, picture = np.zeros(SIZE, np.uint8), STILL.copy()
        rows, columns = slice(6, 18), slice(2 + 2 * index, 10 + 2 * index)
        class_map[rows, columns], picture[rows, columns] = CAR, 160
        result, _ = smoother.smooth(class_map, None, picture, index / 25)
        np.testing.assert_array_equal(result, class_map)


@pytest.mark.parametrize("elapsed", [LONGEST_GAP + 0.01, 3600.0, 0.0, -1.0])
def test_after_a_gap_it_begins_anew(elapsed: float) -> None:
    smoother = TemporalSmoother(SmoothingOptions())
    for index in range(10):
        smoother.smooth(seen(CAR), None, STILL, 100 + index / 25)
    at = 100 + 9 / 25 + elapsed
    np.testing.assert_array_equal(smoother.smooth(seen(PERSON), None, STILL, at)[0], seen(PERSON))
    # And what was there before is forgotten: the new class has the trust of one look.
    assert smoother.smooth(seen(CAR), None, STILL, at + 0.04)[0][8, 8] == PERSON
    assert smoother.smooth(seen(CAR), None, STILL, at + 0.08)[0][8, 8] == CAR


@pytest.mark.parametrize("how", ["the picture", "the classes, in the dark"])
def test_a_cut_begins_anew(how: str) -> None:
    smoother = TemporalSmoother(SmoothingOptions())
    for index in range(10):
        smoother.smooth(seen(CAR), None, STILL, index / 25)
    if how == "the picture":
        class_map, picture = seen(PERSON), np.full_like(STILL, 150)
        picture[6:14, 6:14] = 90  # just here it is as it was
    else:
        class_map, picture = seen(PERSON) + np.uint8(2), STILL
    np.testing.assert_array_equal(smoother.smooth(class_map, None, picture, 0.4)[0], class_map)


def test_confidence_is_what_the_look_leaves_the_class_that_is_shown() -> None:
    smoother = TemporalSmoother(SmoothingOptions())
    for index in range(10):
        _, sure = smoother.smooth(seen(CAR), np.full(SIZE, 230, np.uint8), STILL, index / 25)
        assert sure is not None
        assert (sure == 230).all()
    confidence = np.full(SIZE, 200, np.uint8)
    confidence[:, :10] = 100
    result, sure = smoother.smooth(seen(PERSON), confidence, STILL, 0.4)
    np.testing.assert_array_equal(result, seen(CAR))
    assert sure is not None
    assert (sure[8:12, 8:10] == 100).all(), "no more than the class that was seen has"
    assert (sure[8:12, 10:12] == 55).all(), "no more than it leaves"
    away = seen(1) == 0
    np.testing.assert_array_equal(sure[away], confidence[away])


# What holds of any footage --------------------------------------------------------------------------------------------

LOOKS = st.integers(2, 12).flatmap(
    lambda count: st.tuples(
        hnp.arrays(np.uint8, (count, 6, 7), elements=st.sampled_from([0, 10, 11, 13, 255])),
        hnp.arrays(np.uint8, (count, 6, 7)),
        hnp.arrays(np.uint8, (count, 6, 7, 3), elements=st.integers(80, 100)),
        st.lists(st.floats(0.001, 0.6), min_size=count, max_size=count),
    )
)
OPTIONS = st.builds(SmoothingOptions, hold=st.floats(0.01, 1), motion=st.floats(0.5, 255))


@settings(deadline=None, max_examples=50)
@given(LOOKS, OPTIONS, st.booleans())
def test_no_class_is_shown_that_was_not_seen_there_a_moment_ago(
    looks: tuple[UInt8, UInt8, UInt8, list[float]], options: SmoothingOptions, with_confidence: bool
) -> None:
    maps, sure, pictures, steps = looks
    smoother, times = TemporalSmoother(options), np.cumsum(steps)
    given_in = [array.copy() for array in (maps, sure, pictures)]
    for now in range(len(maps)):
        confidence = sure[now] if with_confidence else None
        result, left = smoother.smooth(maps[now], confidence, pictures[now], float(times[now]))
        assert result.dtype == np.uint8
        recent = [k for k in range(now + 1) if times[now] - times[k] <= options.hold / LEAST_WEIGHT + 1e-9]
        assert np.logical_or.reduce([maps[k] == result for k in recent]).all()
        same = result == maps[now]
        if with_confidence:
            assert left is not None
            np.testing.assert_array_equal(left[same], sure[now][same])
            assert (left <= sure[now]).all()
        else:
            assert left is None
        result[:] = 77 if now % 2 else result  # it is the caller's own
        maps[now], pictures[now] = given_in[0][now], given_in[2][now]
    for array, before in zip((maps, sure, pictures), given_in, strict=True):
        np.testing.assert_array_equal(array, before)


@settings(deadline=None, max_examples=30)
@given(LOOKS, OPTIONS)
def test_what_stays_the_same_is_shown_as_it_is(
    looks: tuple[UInt8, UInt8, UInt8, list[float]], options: SmoothingOptions
) -> None:
    maps, sure, pictures, steps = looks
    smoother = TemporalSmoother(options)
    for time, confidence, picture in zip(np.cumsum(steps), sure, pictures, strict=True):
        result, left = smoother.smooth(maps[0], confidence, picture, float(time))
        np.testing.assert_array_equal(result, maps[0])
        np.testing.assert_array_equal(left, confidence)


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.uint8, (15, 4), elements=st.sampled_from([0, 11, 13])),
    hnp.arrays(np.uint8, (15, 4), elements=st.integers(26, 85).map(lambda third: 3 * third)),
    hnp.arrays(np.uint8, 15, elements=st.integers(0, 20)),
)
def test_it_is_what_plain_arithmetic_says(classes: UInt8, sure: UInt8, brightness: UInt8) -> None:
    """Four pixels in a larger still map, looks a third of `hold` apart, levels that count whole: nothing is rounded."""
    smoother = TemporalSmoother(SmoothingOptions(hold=0.12, motion=1.0))
    held = [(int(c), 128) for c in classes[0]]
    for now, (row, confident) in enumerate(zip(classes, sure, strict=True)):
        class_map, confidence = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
        class_map[5, 5:9], confidence[5, 5:9] = row, confident
        picture = np.full_like(STILL, 90 + int(brightness[now]))
        result, _ = smoother.smooth(class_map, confidence, picture, now * 0.04)
        change = abs(int(brightness[now]) - int(brightness[now - 1]))
        for place, (class_id, p) in enumerate(zip(row.tolist(), confident.tolist(), strict=True)):
            known, trust = held[place]
            weight = max(p // 3, 26)  # 0.3 of 85 is 25.5
            against = min(weight + min(weight * change, 255), 255)
            if now and class_id == known:
                held[place] = (known, min(trust + weight, 255))
            elif now:
                held[place] = (class_id, 128) if against >= trust else (known, trust - against)
        assert result[5, 5:9].tolist() == [known for known, _ in held]


# In the analysis ------------------------------------------------------------------------------------------------------

SPEC = ModelSpec(
    name="unet", version="1", task="segmentation", height=SIZE[0], width=SIZE[1], classes=CITYSCAPES_CLASSES,
    outputs={"class_map": "class_map"},
)  # fmt: skip


def frame(index: int) -> Frame:
    image = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 90, np.uint8), format="rgb24").reformat(format="yuv420p")
    return Frame("drive", index, index, Fraction(1, 25), 0.0, 0.0, image)


def fuser(smoothing: SmoothingOptions | None = SmoothingOptions()) -> Fuser:  # noqa: B008  # frozen
    return Fuser([SPEC], FuseOptions(smoothing=smoothing))


def test_without_it_everything_is_as_the_segmenter_said() -> None:
    plain = fuser(None)
    for index, class_id in enumerate([CAR, PERSON, CAR]):
        prediction = Prediction(class_map=seen(class_id), confidence=np.full(SIZE, 200, np.uint8))
        analysis = plain.fuse(frame(index), "file", {"unet": prediction})
        assert analysis.class_map is prediction.class_map
        assert analysis.confidence is prediction.confidence
        assert analysis.unsmoothed is None
        assert not from_analysis(analysis, 0).smoothed
    assert FuseOptions().smoothing is None
    assert Config().smoothing is None


def test_areas_boxes_and_messages_are_those_of_the_map_that_is_shown() -> None:
    steady = fuser()
    for index, class_id in enumerate([CAR, CAR, CAR, PERSON, CAR]):
        prediction = Prediction(class_map=seen(class_id), confidence=np.full(SIZE, 230, np.uint8))
        analysis = steady.fuse(frame(index), "file", {"unet": prediction})
        np.testing.assert_array_equal(analysis.class_map, seen(CAR))
        assert analysis.unsmoothed is prediction.class_map
        assert analysis.area == pytest.approx({"road": 1 - 16 / 768, "car": 16 / 768})
        # At the fourth look a car has a tenth of the confidence left: not enough for a box.
        assert [(b.label, b.track) for b in analysis.boxes] == ([] if index == 3 else [("car", 1)])
        assert from_analysis(analysis, 0).smoothed


def test_between_looks_it_rests() -> None:
    steady, each = fuser(), fuser()
    for index in range(30):
        look = {"unet": Prediction(class_map=seen(CAR if index < 15 else PERSON))} if index % 3 == 0 else {}
        analysis = steady.fuse(frame(index), "file", look)
        if look:
            now = each.fuse(frame(index), "file", look)
        np.testing.assert_array_equal(analysis.class_map, now.class_map)
        np.testing.assert_array_equal(analysis.unsmoothed, seen(CAR if index < 15 else PERSON))
        assert analysis.models == (("unet",) if look else ())


def test_the_picture_is_the_models_input_wherever_that_was_made() -> None:
    given_it, makes_it = fuser(), fuser()
    random = np.random.default_rng(3)
    for index in range(12):
        class_map = np.where(random.random(SIZE) < 0.2, CAR, ROAD).astype(np.uint8)
        image = av.VideoFrame.from_ndarray(random.integers(84, 96, (96, 128, 3), np.uint8), format="rgb24")
        now = frame(index)
        now.image = image.reformat(format="yuv420p")
        look = {"unet": Prediction(class_map=class_map)}
        first = given_it.fuse(now, "file", look, {SIZE: network_input(now.image, *SIZE), (8, 8): STILL[:8, :8]})
        np.testing.assert_array_equal(first.class_map, makes_it.fuse(now, "file", look).class_map)
        assert index == 0 or (first.class_map != class_map).any()


# Privacy --------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["person", "rider", "car", "road", "building"]),
                st.integers(0, 23), st.integers(0, 31), st.integers(1, 10), st.integers(1, 10),
            ),
            max_size=3,
        ),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_whoever_is_covered_without_it_is_covered_with_it(scenes: list[list[tuple[str, int, int, int, int]]]) -> None:
    covered: list[UInt8] = []

    def record(image: av.VideoFrame, mask: UInt8, _blocks: int = 8) -> av.VideoFrame:
        covered.append(mask)
        return image

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anonymize, "blurred", record)
        plain, steady = fuser(None), fuser(SmoothingOptions(hold=1.0))
        stages = [AnonymizeStage(AnonymizeOptions(margin=0.0, hold=0.0), "unet") for _ in range(2)]
        for index, scene in enumerate(scenes):
            class_map = np.zeros(SIZE, np.uint8)
            for name, y, x, high, wide in scene:
                class_map[y : y + high, x : x + wide] = ID[name]
            for each, stage in zip((plain, steady), stages, strict=True):
                stage.process(each.fuse(frame(index), "file", {"unet": Prediction(class_map=class_map.copy())}))
            without, smoothed = covered[-2:]
            assert not np.any(without & ~smoothed)


def test_a_person_is_blurred_in_the_first_frame_though_not_yet_shown() -> None:
    steady, stage = fuser(), AnonymizeStage(AnonymizeOptions(margin=0.0), "unet")
    for index, class_id in enumerate([ROAD] * 5 + [PERSON]):
        analysis = steady.fuse(frame(index), "file", {"unet": Prediction(class_map=seen(class_id))})
        image = analysis.frame.image
        stage.process(analysis)
    assert analysis.class_map is not None
    assert not analysis.class_map.any()
    assert analysis.anonymized
    assert analysis.frame.image is not image


# From outside ---------------------------------------------------------------------------------------------------------


def blinking() -> Iterator[UInt8]:
    """A grey wall with a patch that is just dark enough for one class, and every fourth time just bright enough for
    another."""
    for index in range(40):
        picture = np.full((160, 320, 3), 40, np.uint8)
        picture[40:80, 80:160] = 131 if index % 4 == 3 else 125
        yield picture


def said(path: Path) -> list[dict[str, Any]]:
    """The lines of a run, without what differs from run to run."""
    changing = {"run", "run_start", "captured_at", "age_ms", "timings_ms"}
    return [{k: v for k, v in line.items() if k not in changing} for line in json_lines(path)]


@pytest.fixture
def blinks(tmp_path: Path) -> Path:
    path = tmp_path / "blinks.mkv"
    write_clip(path, frames=40, size=(320, 160), codec="ffv1", pictures=blinking())
    return path


def areas(lines: str) -> list[float]:
    return [line["area"].get("class 7", 0.0) for line in map(json.loads, lines.splitlines())]


@pytest.mark.slow
def test_the_command_smooths_when_asked_to(roadlens: Run, tmp_path: Path, blinks: Path, segmenter: Path) -> None:
    (tmp_path / "run.yaml").write_text("smoothing: {hold: 0.2}\n")
    for option in (["--smooth"], ["--config", "run.yaml"]):
        smooth = roadlens("run", blinks, "--model", segmenter, "--jsonl", "-", *option)
        assert smooth.returncode == 0, smooth.stderr
        assert areas(smooth.stdout) == [0.0] * 40
        assert all(json.loads(line)["smoothed"] for line in smooth.stdout.splitlines())


def test_a_resumed_run_shows_what_it_would_have_shown_uninterrupted(
    tmp_path: Path, blinks: Path, segmenter: Path
) -> None:
    config = Config(
        streams=(StreamConfig(str(blinks)),), models=(ModelConfig(str(segmenter)),), smoothing=SmoothingOptions(),
        jsonl=str(tmp_path / "o.jsonl"),
    )  # fmt: skip
    with Session(config) as session:
        session.run()
    whole = said(tmp_path / "o.jsonl")
    written = (tmp_path / "o.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "o.jsonl").unlink()
    (tmp_path / "o.partial.jsonl").write_text("".join(written[:23]))  # the next one is of another class
    (tmp_path / "o.jsonl.source").write_text(json.dumps({"source": fingerprints(str(blinks), [blinks])}))
    with Session(config, resume=True) as session:
        (stream,) = session.run().streams
    assert said(tmp_path / "o.jsonl") == whole
    assert (stream.counts.decoded, stream.counts.emitted, stream.counts.dropped) == (17, 17, {})


def test_from_python_too(blinks: Path, segmenter: Path) -> None:
    for smooth in (False, True):
        found = list(pipeline.analyse(str(blinks), model=str(segmenter), smooth=smooth))
        assert len(found) == 40
        blinked = [analysis.frame.index for analysis in found if "class 7" in analysis.area]
        assert blinked == ([] if smooth else list(range(3, 40, 4)))
        assert all((analysis.unsmoothed is not None) == smooth for analysis in found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("smoothing: {hold: 0}", "hold"),
        ("smoothing: {hold: 2}", "hold"),
        ("smoothing: {motion: -1}", "motion"),
        ("smoothing: {holds: 0.1}", "holds"),
        ("smoothing: true", "smoothing"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_config(path)


def test_it_is_in_the_schema() -> None:
    schema = msgspec.json.encode(config_schema()).decode()
    assert '"SmoothingOptions"' in schema
    assert "seconds for which a fully trusted class must be contradicted" in schema
