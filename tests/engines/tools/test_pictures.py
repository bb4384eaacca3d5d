"""The one reader of pictures: every odd file is read right or refused in one sentence."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.errors import SourceError
from engines.tools.frames import read_frames, read_labelled
from engines.tools.pictures import (
    file_format,
    is_folder,
    is_whole,
    listed,
    read_ids,
    read_picture,
    require_known_ids,
)

SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (64, 48))
"""(48, 64, 3) BGR."""

IDS = (np.arange(40 * 53).reshape(40, 53) % 5).astype(np.uint8)


def written(path: Path, picture: np.ndarray, *options: int) -> Path:
    assert cv2.imwrite(str(path), picture, list(options))
    return path


def with_palette(path: Path, ids: np.ndarray, bits: int = 8) -> Path:
    image = pytest.importorskip("PIL.Image", reason="palette PNGs are written with Pillow")
    picture = image.frombytes("P", (ids.shape[1], ids.shape[0]), np.ascontiguousarray(ids).tobytes())
    # Pillow writes as few bits as the palette has colours for.
    colors = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]
    picture.putpalette((colors + [7] * 3 * 256)[: 3 * 2**bits])
    picture.save(path, bits=bits)
    return path


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_picture_is_red_green_blue(ending: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"x.{ending}", SMOOTH)
    found = read_picture(path)
    assert found.shape == (48, 64, 3)
    assert np.abs(found[..., ::-1].astype(int) - SMOOTH).mean() < 6
    named_otherwise = path.rename(tmp_path / "x.jpg" if ending != "jpg" else tmp_path / "x.png")
    np.testing.assert_array_equal(read_picture(named_otherwise), found)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_brought_to_8_and_not_clipped(ending: str, channels: int, tmp_path: Path) -> None:
    wide = SMOOTH.astype(np.uint16) * 257
    given, expected = (wide, SMOOTH) if channels == 3 else (wide[..., 0], np.repeat(SMOOTH[..., :1], 3, 2))
    found = read_picture(written(tmp_path / f"x.{ending}", given))
    assert found.dtype == np.uint8
    assert np.abs(found[..., ::-1].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.97])
def test_a_picture_that_was_cut_off_is_refused(ending: str, kept: float, tmp_path: Path) -> None:
    path = written(tmp_path / f"x.{ending}", SMOOTH)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    for read in (read_picture, read_ids):
        with pytest.raises(
            SourceError, match=r"x\.\w+ cannot be decoded as an image: it is not a whole picture"
        ) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_of_32_bits_are_no_photo(kind: type[np.generic], tmp_path: Path) -> None:
    path = written(tmp_path / "depth.tif", SMOOTH[..., 0].astype(kind))
    with pytest.raises(SourceError, match=f"holds {np.dtype(kind)} numbers, and a photo 8 or 16 bits"):
        read_picture(path)


def test_a_thumbnail_has_an_end_of_its_own_and_what_follows_the_end_does_not_matter() -> None:
    _, data = cv2.imencode(".jpg", SMOOTH)
    jpeg = data.tobytes()
    exif = b"\xff\xe1" + struct.pack(">H", len(jpeg) + 2) + jpeg
    with_thumbnail = jpeg[:2] + exif + jpeg[2:]
    assert is_whole(with_thumbnail)
    assert not is_whole(with_thumbnail[: len(exif) + 200])
    assert is_whole(jpeg + bytes(3 * len(jpeg)))  # a phone's moving picture behind its still one


def test_one_that_lies_on_its_side_is_turned_where_it_is_wanted(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="EXIF is written with Pillow")
    picture = image.fromarray(SMOOTH[..., ::-1].copy())
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "x.jpg", exif=exif)
    assert read_picture(tmp_path / "x.jpg").shape == (64, 48, 3)
    assert read_picture(tmp_path / "x.jpg", upright=False).shape == (48, 64, 3)


def announced(width: int, height: int) -> bytes:
    """A PNG whose head says this size and whose pixels are missing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_far_too_large_a_picture_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(announced(60_000, 60_000))
    with pytest.raises(SourceError, match="it has more pixels than OpenCV reads, a thousand million; make it smaller"):
        read_picture(tmp_path / "x.png")


@pytest.mark.slow
def test_a_photo_of_200_megapixels_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jpg", np.zeros((12_240, 16_320, 3), np.uint8))
    assert read_picture(path).shape == (12_240, 16_320, 3)


# Labels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["grey", "16 bits", "grey in colours", "palette", "palette of 4 bits"])
def test_a_label_is_the_numbers_in_its_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    if form.startswith("palette"):
        with_palette(path, IDS, 4 if "4" in form else 8)
    else:
        stored = {"grey": IDS, "16 bits": IDS.astype(np.uint16), "grey in colours": np.repeat(IDS[..., None], 3, 2)}
        written(path, stored[form])
    np.testing.assert_array_equal(read_ids(path), IDS)


def test_a_label_of_one_bit_holds_0_and_1(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="PNGs of one bit are written with Pillow")
    image.fromarray(IDS % 2 == 1).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_ids(tmp_path / "x.png"), IDS % 2)
    with_palette(tmp_path / "y.png", IDS % 2, bits=1)
    np.testing.assert_array_equal(read_ids(tmp_path / "y.png"), IDS % 2)


def test_a_palette_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = with_palette(tmp_path / "x.png", IDS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SourceError, match="is not a whole picture"):
        read_ids(path)


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        (
            SMOOTH,
            r"is not an 8-bit grey PNG, nor one with a palette: it is in colours \(\d+ of them\); wanted are class ids",
        ),
        (np.full((4, 4), 1007, np.uint16), "holds the 16-bit number 1007; class ids go from 0 to 254"),
        (np.full((4, 4), 0.5, np.float32), "holds float32 numbers; wanted are class ids"),
    ],
)
def test_what_is_no_label(stored: np.ndarray, sentence: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x.tif", stored)
    with pytest.raises(SourceError, match=sentence):
        read_ids(path)


def test_a_stray_number_is_named_with_its_file_and_the_classes(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 7, 7], [9, 1, 0, 255]], np.uint8)
    with pytest.raises(
        SourceError, match=r"b\.png holds 7, which is no class, in 25\.00% of its pixels \(and 1 .*\): there"
    ):
        require_known_ids(Path("a/b.png"), ids, (0, 1, 255), "there are 0 road and 1 sky")
    require_known_ids(Path("a/b.png"), ids, (0, 1, 7, 9, 255), "all")


# Folders ------------------------------------------------------------------------------------------------------------


def test_what_systems_leave_in_folders_is_not_seen(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        for name in (".DS_Store", "._1.png", "Thumbs.db"):
            (tmp_path / part / name).write_bytes(b"x")
    written(tmp_path / "images/1.png", SMOOTH)
    written(tmp_path / "labels/1.png", np.zeros((48, 64), np.uint8))
    assert [path.name for path in listed(tmp_path / "images")] == ["1.png", "Thumbs.db"]
    assert len(list(read_labelled(tmp_path, frozenset({0, 1})))) == 1
    assert len(list(read_frames(tmp_path / "images"))) == 1


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert not is_folder(tmp_path / "file")
    with pytest.raises(SourceError, match="There is no folder"):
        listed(tmp_path / "nothing")
    with pytest.raises(SourceError, match="file cannot be read"):
        listed(tmp_path / "file")


UNREADABLE = """
import os
import sys
from pathlib import Path
from engines.errors import SourceError
from engines.tools.pictures import is_folder, listed, read_picture
root = Path(sys.argv[1])
if os.geteuid() == 0:  # nobody keeps the superuser out of a folder
    os.seteuid(65534)
for look in (lambda: listed(root), lambda: is_folder(root / "train"), lambda: read_picture(root / "x.png")):
    try:
        look()
    except SourceError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
def test_folders_that_may_not_be_read(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    root = str(Path(__file__).parents[3])
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    done = subprocess.run(
        [sys.executable, "-c", UNREADABLE, str(closed)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    closed.chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert [line.count("cannot be read (Permission denied)") for line in done.stdout.splitlines()] == [1, 1, 1]


def test_formats_are_told_by_content() -> None:
    assert [file_format(data) for data in (b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0", b"text")] == [
        "JPEG", "GIF", "TIFF", "no picture",
    ]  # fmt: skip
