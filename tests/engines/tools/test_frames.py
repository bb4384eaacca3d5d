"""Pictures out of videos, images, folders and labelled folders."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import SourceError
from engines.tools.frames import read_frame_at, read_frames, read_labelled
from tests.footage import entitle, write_clip

RED, GREEN = (200, 10, 20), (10, 200, 20)


def image(path: Path, rgb: tuple[int, int, int], size: tuple[int, int] = (8, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), rgb[::-1], np.uint8))
    return path


def label(path: Path, ids: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), ids)
    return path


def test_an_image_is_rgb(tmp_path: Path) -> None:
    (picture,) = read_frames(image(tmp_path / "a.png", RED))
    assert picture.shape == (8, 12, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[0, 0]) == RED


def test_a_folder_gives_its_images_in_order_of_name(tmp_path: Path) -> None:
    image(tmp_path / "b.png", GREEN, (4, 6))
    image(tmp_path / "a.PNG", RED)
    (tmp_path / "notes.txt").write_text("not a picture")
    assert [tuple(p[0, 0]) for p in read_frames(tmp_path)] == [RED, GREEN]


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (None, list(range(10))),
        (10, list(range(10))),
        (99, list(range(10))),
        (5, [0, 2, 4, 6, 8]),
        (1, [0]),
        (3, [0, 4, 7]),
    ],
)
def test_a_count_is_spread_evenly(tmp_path: Path, count: int | None, wanted: list[int]) -> None:
    for number in range(10):
        image(tmp_path / f"{number:02}.png", (number, 0, 0))
    assert [int(p[0, 0, 0]) for p in read_frames(tmp_path, count)] == wanted


def test_a_video_gives_its_frames(tmp_path: Path) -> None:
    pictures = [np.full((48, 64, 3), level, np.uint8) for level in range(20, 220, 20)]
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=10, size=(64, 48), pictures=pictures)
    read = list(read_frames(path))
    assert [p.shape for p in read] == [(48, 64, 3)] * 10
    np.testing.assert_allclose([p.mean() for p in read], range(20, 220, 20), atol=6)  # lossy
    np.testing.assert_allclose([p.mean() for p in read_frames(path, 5)], range(20, 220, 40), atol=6)


def test_a_folder_of_clips_counts_all_their_frames(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mkv"):
        write_clip(tmp_path / name, frames=6, size=(64, 48))
    assert len(list(read_frames(tmp_path))) == 12
    assert len(list(read_frames(tmp_path, 4))) == 4


def test_rotated_footage_comes_upright(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32] = 255  # the left half is bright; turned clockwise by 90°, it is the upper one
    path = tmp_path / "phone.mp4"
    write_clip(path, frames=1, size=(64, 48), rotation=90, pictures=[picture])
    (read,) = read_frames(path)
    assert read.shape == (64, 48, 3)
    assert read[:28].mean() > 240
    assert read[36:].mean() < 15


def test_what_gives_no_frame(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="There is no"):
        list(read_frames(tmp_path / "absent.mp4"))
    with pytest.raises(SourceError, match="holds no image and no video"):
        list(read_frames(tmp_path))
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(SourceError, match="holds no image and no video"):
        list(read_frames(tmp_path))
    with pytest.raises(SourceError, match="cannot be decoded"):
        list(read_frames(tmp_path / "notes.txt"))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(SourceError, match=r"broken\.png cannot be decoded"):
        list(read_frames(tmp_path))


def test_labelled_pictures_come_with_their_labels(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [255, 2]], np.uint8)
    for stem, colour in (("x", RED), ("y", GREEN)):
        image(tmp_path / "images" / f"{stem}.{'png' if stem == 'x' else 'jpg'}", colour)
        label(tmp_path / "labels" / f"{stem}.png", ids)
    read = list(read_labelled(tmp_path, frozenset({0, 1, 2})))
    assert tuple(read[0][0][0, 0]) == RED
    for _, found in read:
        np.testing.assert_array_equal(found, ids, strict=True)


def test_labelled_folders_that_are_not(tmp_path: Path) -> None:
    ids = frozenset({0, 1})

    def complaint() -> str:
        with pytest.raises(SourceError) as raised:
            list(read_labelled(tmp_path, ids))
        return str(raised.value)

    assert f"There is no folder {tmp_path / 'images'}" in complaint()
    (tmp_path / "images").mkdir()
    assert f"There is no folder {tmp_path / 'labels'}" in complaint()
    (tmp_path / "labels").mkdir()
    assert "holds no image" in complaint()
    image(tmp_path / "images" / "a.png", RED)
    assert "a.png has no label" in complaint()
    image(tmp_path / "labels" / "a.png", RED)
    assert "is not an 8-bit grey PNG" in complaint()
    label(tmp_path / "labels" / "a.png", np.array([[0, 7]], np.uint8))
    assert "holds 7, which is no class" in complaint()


def test_tags_that_are_not_utf8_stop_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_clip(path)
    entitle(path, "Straße nach Köln".encode("latin-1"))
    assert len(list(read_frames(path))) == 25
    assert read_frame_at(path, 0.5).shape == (180, 320, 3)


def test_an_image_that_announces_more_pixels_than_can_be_is_one_sentence(tmp_path: Path) -> None:
    path = image(tmp_path / "a.png", RED)
    content = path.read_bytes()
    head = b"IHDR" + struct.pack(">II", 100_000, 100_000) + content[24:29]
    path.write_bytes(content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:])
    with pytest.raises(SourceError, match="cannot be decoded as an image"):
        list(read_frames(path))
