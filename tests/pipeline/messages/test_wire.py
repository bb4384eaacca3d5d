"""The wire format: round trips, foreign readers, and bytes that are no message."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engines.classes import CITYSCAPES_CLASSES, ClassInfo
from pipeline.frame import Box
from pipeline.messages import composing, headers, masks, topics, wire
from pipeline.messages.headers import AnalysisMessage, EndMessage, Header, MessageError
from tests.pipeline.fake_analysis import analysis, areas

CLASS_MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)) | hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.sampled_from([0, 10, 255])
)
END = EndMessage(stream="drive", sequence=3, frames=3, dropped=1, reason="complete")


def header(**changes: Any) -> AnalysisMessage:
    return msgspec.structs.replace(composing.from_analysis(analysis(3), 3, run="c0ffee", run_start=1), **changes)


# The header ---------------------------------------------------------------------------------------------------------


def test_the_header_says_what_the_analysis_says() -> None:
    assert json.loads(wire.to_json(header())) == {
        "kind": "analysis",
        "version": 1,
        "stream": "drive",
        "sequence": 3,
        "run": "c0ffee",
        "run_start": 1,
        "frame": 3,
        "pts": 1536,
        "time_base": [1, 12800],
        "time_s": 0.12,
        "captured_at": 1700000000.243456,
        "captured_from": "",
        "width": 64,
        "height": 36,
        "mode": "file",
        "age_ms": 42.1,
        "dropped_since_last": 0,
        "models": ["cityscapes-unet"],
        "carried_from": {},
        "boxes": [
            {"x1": 1.26, "y1": 2.0, "x2": 30.5, "y2": 20.25, "class_id": 13, "label": "car", "score": 0.877,
             "origin": "cityscapes-unet", "track": 7},
            {"x1": 40.0, "y1": 3.0, "x2": 44.0, "y2": 12.0, "class_id": 11, "label": "person", "score": 0.5,
             "origin": "cityscapes-unet", "track": None},
        ],
        "area": {"road": 0.5123, "sky": 0.3},
        "timings_ms": {"decode": 3.712, "infer": 18.25},
        "smoothed": False,
        "anonymized": False,
        "notes": {},
        "ignored": None,
        "mask": None,
    }  # fmt: skip


def test_numbers_of_numpy_are_written_like_any_other() -> None:
    box = Box(*np.float32([1.5, 2, 3, 4]), np.int32(2), "car", np.float32(0.25), "m", np.int64(9))
    boxes = composing.from_analysis(
        analysis(boxes=(box,), area={"road": np.float64(0.5)}, age=np.float32(0.5)), 0
    ).boxes
    assert msgspec.to_builtins(boxes[0]) == {
        "x1": 1.5, "y1": 2.0, "x2": 3.0, "y2": 4.0,
        "class_id": 2, "label": "car", "score": 0.25, "origin": "m", "track": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("drive", b"roadlens/v1/drive/analysis"),
        ("front.left-1_a", b"roadlens/v1/front.left-1_a/analysis"),
        ("a/b", b"roadlens/v1/a%2Fb/analysis"),
        ("Kühler 1", b"roadlens/v1/K%C3%BChler%201/analysis"),
    ],
)
def test_a_topic_names_stream_and_kind_and_a_stream_cannot_break_out_of_it(stream: str, expected: bytes) -> None:
    assert topics.topic(stream, "analysis") == expected
    assert expected.startswith(topics.topic(stream))
    assert topics.topic(stream).startswith(topics.PREFIX)


@pytest.mark.parametrize("written", ["msgpack", "json"])
@pytest.mark.parametrize("mask", ["png", "rle"])
@settings(max_examples=40, deadline=None)
@given(class_map=CLASS_MAPS)
def test_what_is_encoded_is_decoded(written: Any, mask: Any, class_map: np.ndarray) -> None:
    parts = wire.encode(header(), class_map, CITYSCAPES_CLASSES, header=written, mask=mask).parts
    received = wire.decode(parts)
    assert isinstance(received.header, AnalysisMessage)
    described = received.header.mask
    assert described is not None
    assert (described.encoding, described.height, described.width) == (mask, *class_map.shape)
    assert [(c.id, c.name, c.color, c.thing) for c in CITYSCAPES_CLASSES] == [
        (c.id, c.name, c.color, c.thing) for c in described.labels
    ]
    assert msgspec.structs.replace(received.header, mask=None) == header()
    np.testing.assert_array_equal(received.class_map, class_map)
    assert received.payload == parts[2]


@pytest.mark.parametrize("written", ["msgpack", "json"])
@pytest.mark.parametrize("message", [header(), END], ids=["analysis", "end"])
def test_a_message_without_a_mask_has_two_parts(written: Any, message: Header) -> None:
    parts = wire.encode(message, header=written).parts
    assert len(parts) == 2
    received = wire.decode(parts)
    assert (received.header, received.class_map, received.payload) == (message, None, None)


def test_a_mask_that_is_not_wanted_is_left_out() -> None:
    assert len(wire.encode(header(), areas(), CITYSCAPES_CLASSES, mask="none").parts) == 2


def test_a_reader_passes_over_fields_it_does_not_know() -> None:
    later = json.loads(wire.to_json(header())) | {"lane": "left"}
    assert wire.decode_header(json.dumps(later).encode()) == header()
    assert wire.decode_header(msgpack.packb(later)) == header()


def test_the_bridge_of_the_page_is_twenty_lines_of_python() -> None:
    page = Path(wire.__file__).with_name("MESSAGES.md").read_text()
    source = page.split("```python\n")[1].split("```")[0]
    compile(source, "bridge", "exec")
    assert len([line for line in source.splitlines() if line.strip()]) <= 22  # the docstring and a comment among them


# The schema ---------------------------------------------------------------------------------------------------------


def test_the_published_schema_is_the_one_of_the_code() -> None:
    published = Path(wire.__file__).with_name("messages.schema.json")
    assert json.loads(published.read_text()) == headers.schema(), (
        "stale: python -m pipeline.messages.headers > pipeline/messages/messages.schema.json"
    )


def test_what_is_sent_fits_the_published_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(headers.schema())
    validator = jsonschema.Draft202012Validator(headers.schema())
    for message in (header(), END):
        validator.validate(json.loads(wire.to_json(message)))
    for mask in ("png", "rle"):
        written = wire.encode(header(), areas(), CITYSCAPES_CLASSES, mask=mask).parts[1]
        validator.validate(msgpack.unpackb(written))


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda message: message.pop(key) and None


def with_(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda message: message.update(values)


def in_box(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda message: message["boxes"][0].update(values)


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (without("stream"), "stream"),
        (without("pts"), "pts"),
        (with_(stream=""), "stream"),
        (with_(sequence=-1), "sequence"),
        (with_(sequence="3"), "sequence"),
        (with_(width=0), "width"),
        (with_(time_base=[1, 0]), "time_base"),
        (with_(time_base=[1]), "time_base"),
        (with_(mode="slow"), "mode"),
        (with_(area={"road": 1.5}), "area"),
        (with_(kind="weather"), "weather"),
        (with_(version=2), "wire format 2"),
        (in_box(score=2), "score"),
        (in_box(x1="left"), "x1"),
        (with_(mask={"encoding": "jpeg", "width": 1, "height": 1, "labels": []}), "jpeg"),
        (with_(mask={"encoding": "png", "width": 1 << 20, "height": 1, "labels": []}), "width"),
    ],
)
@pytest.mark.parametrize("pack", [msgpack.packb, lambda m: json.dumps(m).encode()], ids=["msgpack", "json"])
def test_schema_and_reader_refuse_the_same(break_it: Any, said: str, pack: Callable[[Any], bytes]) -> None:
    message = json.loads(wire.to_json(header()))
    break_it(message)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(message, headers.schema())
    with pytest.raises(MessageError, match=said):
        wire.decode([topics.topic("drive", "analysis"), pack(message)])


# Bytes that are no message ------------------------------------------------------------------------------------------

PARTS = wire.encode(header(), areas(), CITYSCAPES_CLASSES).parts
RUNS = wire.encode(header(), areas(), CITYSCAPES_CLASSES, mask="rle").parts


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "has 0"),
        (PARTS[:1], "has 1"),
        ([*PARTS, b""], "has 4"),
        (PARTS[:2], "no payload"),
        ([*wire.encode(END).parts, b"x"], "does not describe"),
        ([b"roadlens/v1/other/analysis", *PARTS[1:]], "topic"),
        ([b"roadlens/v1/drive/end", *PARTS[1:]], "topic"),
        ([PARTS[0], b"", PARTS[2]], "not the header"),
        ([PARTS[0], b"{" * 100_000, PARTS[2]], "not the header"),
        ([PARTS[0], b"\x91" * 100_000, PARTS[2]], "not the header"),
        ([PARTS[0], PARTS[1], b"GIF89a"], "does not begin"),
        ([PARTS[0], PARTS[1], PARTS[2][:-30]], "damaged|hold"),
        ([PARTS[0], PARTS[1], masks.encode_png(areas(32, 63))], "64×32"),
        ([RUNS[0], RUNS[1], RUNS[2][:-1]], "3 bytes"),
        ([RUNS[0], RUNS[1], RUNS[2][:-3]], "add up"),
        ([RUNS[0], RUNS[1], RUNS[2] * 2], "add up"),
    ],
)
def test_what_is_no_message_is_refused_in_a_sentence(parts: list[bytes], said: str) -> None:
    with pytest.raises(MessageError, match=said) as refused:
        wire.decode(parts)
    assert "\n" not in str(refused.value)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), parts=st.sampled_from([PARTS, RUNS]))
def test_damaged_bytes_are_refused_or_read_and_nothing_else(data: st.DataObject, parts: list[bytes]) -> None:
    damaged = [bytearray(part) for part in parts]
    for _ in range(data.draw(st.integers(1, 4))):
        part = damaged[data.draw(st.integers(0, 2))]
        part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    try:
        received = wire.decode([bytes(part) for part in damaged])
    except MessageError:
        return
    if received.class_map is not None:
        assert received.class_map.dtype == np.uint8


def test_a_small_payload_cannot_claim_a_large_picture() -> None:
    """A bomb: 64 MB of zeros behind a header of 64×32."""
    png = masks.encode_png(areas())
    begin = png.index(b"IDAT") - 4
    packed = zlib.compress(bytes(1 << 26))
    chunk = struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed))
    with pytest.raises(MessageError, match="does not hold"):
        masks.decode_png(png[:begin] + chunk + masks._END, 64, 32)


# Masks, read by others ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(class_map=CLASS_MAPS)
def test_pillow_reads_ids_and_palette(class_map: np.ndarray) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed").open(
        io.BytesIO(masks.encode_png(class_map, CITYSCAPES_CLASSES))
    )
    image.load()
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), class_map)
    palette = np.array(image.getpalette()).reshape(-1, 3)
    for c in CITYSCAPES_CLASSES:
        assert tuple(palette[c.id]) == c.color
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    np.testing.assert_array_equal(alpha, np.where(class_map == 255, 0, 255))


@settings(max_examples=60, deadline=None)
@given(class_map=CLASS_MAPS)
def test_opencv_reads_the_colours(class_map: np.ndarray) -> None:
    colors = np.zeros((256, 3), np.uint8)
    for c in CITYSCAPES_CLASSES:
        colors[c.id] = c.color
    picture = cv2.imdecode(np.frombuffer(masks.encode_png(class_map, CITYSCAPES_CLASSES), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(picture, colors[class_map][..., ::-1])


def test_what_pillow_writes_without_a_filter_is_read() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed").fromarray(areas())
    image.putpalette(bytes(range(256)) * 3)
    file = io.BytesIO()
    image.save(file, "PNG")
    np.testing.assert_array_equal(masks.decode_png(file.getvalue(), 64, 32), areas())


def test_a_picture_that_is_a_view_is_encoded_like_its_copy() -> None:
    view = areas(64, 64)[::2, 3:40]
    assert masks.encode_png(view) == masks.encode_png(view.copy())
    assert masks.encode_runs(view) == masks.encode_runs(view.copy())


def test_a_class_map_costs_what_it_holds() -> None:
    """Two areas in 256×256 are a few hundred bytes, palette included: no mask is sent as a raster."""
    class_map = np.zeros((256, 256), np.uint8)
    class_map[:100] = 10
    assert len(masks.encode_png(class_map, CITYSCAPES_CLASSES)) < 600


@pytest.mark.parametrize(
    ("class_map", "expected"),
    [
        (np.uint8([[7]]), [(7, 1)]),
        (np.uint8([[1, 1, 2], [2, 2, 0]]), [(1, 2), (2, 3), (0, 1)]),
        (np.zeros((1, 65535), np.uint8), [(0, 65535)]),
        (np.zeros((1, 65536), np.uint8), [(0, 65535), (0, 1)]),
        (np.full((300, 500), 9, np.uint8), [(9, 65535), (9, 65535), (9, 18930)]),
    ],
)
def test_run_lengths(class_map: np.ndarray, expected: list[tuple[int, int]]) -> None:
    written = masks.encode_runs(class_map)
    assert list(struct.iter_unpack("<BH", written)) == expected
    np.testing.assert_array_equal(masks.decode_runs(written, class_map.shape[1], class_map.shape[0]), class_map)


def test_classes_beyond_the_picture_still_have_their_colour() -> None:
    classes = (ClassInfo(0, "nothing", (1, 2, 3)), ClassInfo(200, "far", (9, 8, 7)))
    png = masks.encode_png(np.zeros((2, 2), np.uint8), classes)
    palette = png[png.index(b"PLTE") + 4 :]
    assert palette[:3] == bytes((1, 2, 3))
    assert palette[600:603] == bytes((9, 8, 7))
