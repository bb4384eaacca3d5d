"""Pixels of boxes on the wire: as COCO has them, read by its own library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES
from pipeline.analysis.instances import instance_map
from pipeline.frame import Box
from pipeline.messages import wire
from pipeline.messages.composing import from_analysis
from pipeline.messages.headers import AnalysisMessage, HeaderFormat, MessageError, SegmentationMessage, schema
from pipeline.messages.jsonlines import read_lines
from pipeline.messages.recording import read_recording
from pipeline.messages.segmentations import decode_segmentation, encode_segmentations
from tests.pipeline.conftest import json_lines
from tests.pipeline.fake_analysis import analysis

coco = pytest.importorskip("pycocotools.mask")

OWNERS = hnp.arrays(
    np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=70), elements=st.integers(0, 3)
) | hnp.arrays(np.uint16, (90, 160), elements=st.integers(0, 3), fill=st.integers(0, 3))


@given(OWNERS)
def test_pycocotools_reads_and_writes_the_same(owners: NDArray[np.uint16]) -> None:
    for number, counts in enumerate(encode_segmentations(owners, 3), 1):
        mask = owners == number
        assert (counts == "") == (not mask.any())
        if counts:
            assert counts == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
            told = SegmentationMessage(size=(owners.shape[0], owners.shape[1]), counts=counts)
            np.testing.assert_array_equal(coco.decode(msgspec.to_builtins(told)), mask)
            np.testing.assert_array_equal(decode_segmentation(told), mask)


@given(st.text(max_size=40) | st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=40))
def test_runs_of_a_stranger_are_a_mask_or_refused(counts: str) -> None:
    told = SegmentationMessage(size=(3, 5), counts=counts)
    try:
        mask = decode_segmentation(told)
    except MessageError:
        return
    assert mask.shape == (3, 5)
    assert mask.dtype == np.bool_


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ("", "as COCO writes"),
        ("P", "as COCO writes"),  # goes on, and nothing comes
        ("o" * 40 + "0", "longer than any"),
        ("2", "add up"),
        ("L?", "add up"),  # a run of −4 before one of 15 and more
    ],
)
def test_what_is_wrong_with_runs_is_said(counts: str, why: str) -> None:
    with pytest.raises(MessageError, match=why):
        decode_segmentation(SegmentationMessage(size=(3, 5), counts=counts))


BOXES = (
    Box(0.0, 0.0, 30.0, 30.0, 10, "sky", 0.9, "m", track=7), Box(8.0, 8.0, 64.0, 36.0, 0, "road", 0.8, "m"),
    Box(0.0, 0.0, 64.0, 36.0, 99, "tram", 0.8, "m"),
)  # fmt: skip


@pytest.mark.parametrize("written", ["msgpack", "json"])
def test_a_subscriber_gets_them_where_the_publisher_tells(written: HeaderFormat) -> None:
    seen = analysis(3, boxes=BOXES)
    assert seen.class_map is not None
    sent = from_analysis(seen, 0, instances=True)
    jsonschema.validate(json.loads(wire.to_json(sent)), schema())
    received = wire.decode(wire.encode(sent, seen.class_map, seen.classes, header=written).parts)
    expected = instance_map(seen.class_map, BOXES, CITYSCAPES_CLASSES, (64, 36))
    assert set(expected.ravel()) == {0, 1, 2}
    np.testing.assert_array_equal(received.instances(), expected)
    assert isinstance(received.header, AnalysisMessage)
    assert received.header.boxes[2].segmentation is msgspec.UNSET

    silent = wire.decode(wire.encode(from_analysis(seen, 0), seen.class_map, seen.classes, header=written).parts)
    assert silent.instances() is None
    assert b"segmentation" not in silent.parts[1]
    alone = from_analysis(analysis(3, boxes=BOXES, class_map=None), 0, instances=True)
    assert wire.Received(alone).instances() is None

    odd = msgspec.structs.replace(sent.boxes[0], segmentation=SegmentationMessage(size=(1, 2), counts="11"))
    with pytest.raises(MessageError, match="several sizes"):
        wire.Received(msgspec.structs.replace(sent, boxes=(odd, sent.boxes[1]))).instances()


@pytest.mark.seconds
def test_a_run_tells_them_in_lines_and_recordings(
    roadlens: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    told = ["--jsonl", "told.jsonl", "--mcap", "told.mcap", "--instances"]
    done = roadlens("run", "synthetic:?seconds=0.4&width=640&height=360&seed=1&traffic=16", *told)
    assert done.returncode == 0, done.stderr
    lines = json_lines(tmp_path / "told.jsonl")
    recorded = [
        json.loads(wire.to_json(received.header))
        for received in (wire.decode(each.parts) for each in read_recording(tmp_path / "told.mcap"))
        if isinstance(received.header, AnalysisMessage)
    ]
    boxes = [box for line in lines for box in line["boxes"]]
    assert len(boxes) > len(lines) == 10
    assert [box for line in recorded for box in line["boxes"]] == boxes
    for line in lines:
        masks = [coco.decode(box["segmentation"]) for box in line["boxes"] if "segmentation" in box]
        assert len(masks) > len(line["boxes"]) / 2
        assert np.sum(masks, axis=0).max(initial=0) <= 1, "each pixel is of one object at most"
    assert len(list(read_lines(tmp_path / "told.jsonl"))) == len(lines)
