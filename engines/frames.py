"""Pictures to calibrate, verify and benchmark with: from video files, from folders, from labelled folders."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from engines.errors import SourceError

UInt8 = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def read_frames(source: Path | str, count: int | None = None) -> Iterator[UInt8]:
    """Pictures of a video file, of an image file, or of every one of those directly in a folder, in order of name.

    Args:
        source: the file or folder.
        count: about how many pictures are wanted, spread evenly; None for all.

    Yields:
        (h, w, 3) uint8 RGB, upright, each of its own size.

    Raises:
        SourceError: nothing there, a folder without a picture or video, or a file that cannot be decoded.
    """
    source = Path(source)
    if not source.exists():
        raise SourceError(f"There is no {source}; give a video file, an image or a folder of them.")
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    videos = [path for path in files if path not in images and not path.name.startswith(".")]
    sizes = [_frame_count(path) for path in videos]
    if source.is_dir():  # what is no video lies in many folders; a file that was named must be one
        known = [(path, size) for path, size in zip(videos, sizes, strict=True) if size]
        videos, sizes = [path for path, _ in known], [size for _, size in known]
    if not images and not videos:
        raise SourceError(f"{source} holds no image and no video; give a video file or a folder of images.")
    step = max(1.0, (len(images) + sum(sizes)) / count) if count else 1.0
    due, index = 0.0, 0
    for path in images:
        if index >= due:
            yield read_image(path)
            due += step
        index += 1
    for path in videos:
        for frame in _decode(path):
            if index >= due:
                yield upright(frame)
                due += step
            index += 1


def read_image(path: Path) -> UInt8:
    """An image file as (h, w, 3) uint8 RGB, upright.

    Raises:
        SourceError: it cannot be decoded.
    """
    image = decode_file(path, cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise SourceError(f"{path} cannot be decoded as an image; mend it or take it away.")
    return np.asarray(image, dtype=np.uint8)


def decode_file(path: Path, flags: int) -> NDArray[Any] | None:
    """What `cv2.imread` gives; None also of a file that announces more pixels than OpenCV takes, where it raises."""
    try:
        return cv2.imread(str(path), flags)
    except cv2.error:
        return None


def decode_bytes(content: bytes, flags: int) -> NDArray[Any] | None:
    """The same of a file's content."""
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None


def read_frame_at(path: Path, seconds: float) -> UInt8:
    """The frame of a video that is shown at a time: the last one that begins no later.

    Args:
        path: of the video.
        seconds: from the first frame on, as times in messages and JSON lines count; to the millisecond.

    Returns:
        (h, w, 3) uint8 RGB, upright.

    Raises:
        SourceError: there is no such file, it is no video, or it ends before.
    """
    if not path.is_file():
        raise SourceError(f"There is no video {path}; give the path of one.")
    try:
        with _open(path) as container:
            if not container.streams.video:
                raise SourceError(f"{path} has no video track; give footage with one.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            time_base = stream.time_base or Fraction(1, av.time_base)
            start = stream.start_time or 0
            # Times are printed in milliseconds, rounded: half of one is given.
            wanted = start + int((Fraction(seconds) + Fraction(1, 2000)) / time_base)
            container.seek(wanted, stream=stream)
            shown, end = None, wanted
            for frame in container.decode(stream):
                if frame.pts is None or frame.pts > wanted:
                    break
                shown, end = frame, frame.pts + (frame.duration or 0)
            else:
                if shown is None or end < wanted:
                    length = float((end - start) * time_base) if shown is not None else 0.0
                    until = f"ends at {length:.2f} s" if shown is not None else "has no frame there"
                    raise SourceError(f"{path} {until}; give a time before that, not {seconds:g} s.")
            if shown is None:
                raise SourceError(f"{path} has no frame at {seconds:g} s; give a later time.")
            return upright(shown)
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path} cannot be decoded ({reason}); give footage that FFmpeg reads.") from None


def upright(frame: av.VideoFrame) -> UInt8:
    """A decoded frame as (h, w, 3) uint8 RGB, turned as its display matrix says."""
    image = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))


def read_labelled(folder: Path | str, class_ids: frozenset[int]) -> Iterator[tuple[UInt8, UInt8]]:
    """Pictures of `images/*.png|jpg` with the labels of the same stem in `labels/*.png`.

    Args:
        folder: holds `images` and `labels`.
        class_ids: what a label may hold besides 255 (ignored).

    Yields:
        (h, w, 3) uint8 RGB and (h', w') uint8 class ids.

    Raises:
        SourceError: a folder is missing or empty, a picture has no label, a label is not an 8-bit grey PNG or holds an
            id that is no class.
    """
    folder = Path(folder)
    images, labels = folder / "images", folder / "labels"
    for needed in (images, labels):
        if not needed.is_dir():
            raise SourceError(f"There is no folder {needed}; labelled data are images/*.png or .jpg and labels/*.png.")
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SourceError(f"{images} holds no image; labelled data are images/*.png or .jpg and labels/*.png.")
    for path in paths:
        label_path = labels / f"{path.stem}.png"
        if not label_path.is_file():
            raise SourceError(f"{path} has no label; {label_path} is wanted, a grey PNG of class ids.")
        label = decode_file(label_path, cv2.IMREAD_UNCHANGED)
        if label is None or label.ndim != 2 or label.dtype != np.uint8:
            raise SourceError(f"{label_path} is not an 8-bit grey PNG; wanted are class ids, 255 where ignored.")
        strange = sorted(set(np.unique(label).tolist()) - class_ids - {255})
        if strange:
            raise SourceError(
                f"{label_path} holds {strange[0]}, which is no class of the model; wanted are its class ids, or 255."
            )
        yield read_image(path), np.asarray(label, dtype=np.uint8)


def _open(path: Path) -> InputContainer:
    """Tags of cameras and players are in all sorts of encodings, and nobody reads them here."""
    return av.open(path, metadata_errors="replace")


def _frame_count(path: Path) -> int:
    """About how many frames a video has, from its head alone; 0 for what is no video."""
    try:
        with _open(path) as container:
            stream = container.streams.video[0]
            if stream.frames:
                return stream.frames
            seconds = (container.duration or 0) / av.time_base
            return max(1, round(seconds * float(stream.average_rate or 25)))
    except (OSError, IndexError, av.FFmpegError):
        return 0


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    try:
        with _open(path) as container:
            if not container.streams.video:
                raise SourceError(f"{path} has no video track; give footage with one.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            empty = True
            for frame in container.decode(stream):
                empty = False
                yield frame
            if empty:
                raise SourceError(f"{path} holds no frame that can be decoded; give other footage.")
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path} cannot be decoded ({reason}); give footage that FFmpeg reads.") from None
