"""Pictures to calibrate, verify and benchmark with: from video files, from folders, from labelled folders."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE
from engines.containers import exact, open_container, picture_streams, why_unread
from engines.errors import SourceError
from engines.tools.pictures import IMAGE_SUFFIXES, listed, read_ids, read_picture, require_known_ids

UInt8 = NDArray[np.uint8]


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
    files = [path for path in listed(source) if path.is_file()] if source.is_dir() else [source]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    videos = [path for path in files if path not in images]
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
            yield read_picture(path)
            due += step
        index += 1
    for path in videos:
        for frame in _decode(path):
            if index >= due:
                yield upright(frame)
                due += step
            index += 1


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
        with open_container(path) as container:
            if not (streams := picture_streams(container)):
                raise SourceError(f"{path} has no video track that FFmpeg decodes; give footage with one.")
            stream = streams[0]
            stream.thread_type = "AUTO"
            time_base = exact(stream.time_base, Fraction(1, av.time_base))
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
        raise SourceError(f"{path} cannot be decoded ({why_unread(error)}); give footage that FFmpeg reads.") from None


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
        SourceError: a folder is missing or empty, a picture has no label, a label is none (see
            `engines.tools.pictures.read_ids`) or holds an id that is no class.
    """
    folder = Path(folder)
    images, labels = folder / "images", folder / "labels"
    for needed in (images, labels):
        if not needed.is_dir():
            raise SourceError(f"There is no folder {needed}; labelled data are images/*.png or .jpg and labels/*.png.")
    paths = [path for path in listed(images) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise SourceError(f"{images} holds no image; labelled data are images/*.png or .jpg and labels/*.png.")
    for path in paths:
        label_path = labels / f"{path.stem}.png"
        if not label_path.is_file():
            raise SourceError(f"{path} has no label; {label_path} is wanted, a grey PNG of class ids.")
        label = read_ids(label_path)
        known = ", ".join(map(str, sorted(class_ids)))
        require_known_ids(label_path, label, {*class_ids, IGNORE}, f"the class ids of the model are {known}")
        yield read_picture(path), label


def _frame_count(path: Path) -> int:
    """About how many frames a video has, from its head alone; 0 for what is no video."""
    try:
        with open_container(path) as container:
            stream = picture_streams(container)[0]
            if stream.frames:
                return stream.frames
            seconds = (container.duration or 0) / av.time_base
            return max(1, round(seconds * float(stream.average_rate or 25)))
    except (OSError, IndexError, av.FFmpegError):
        return 0


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    try:
        with open_container(path) as container:
            if not (streams := picture_streams(container)):
                raise SourceError(f"{path} has no video track that FFmpeg decodes; give footage with one.")
            stream = streams[0]
            stream.thread_type = "AUTO"
            empty = True
            for frame in container.decode(stream):
                empty = False
                yield frame
            if empty:
                raise SourceError(f"{path} holds no frame that can be decoded; give other footage.")
    except (OSError, av.FFmpegError) as error:
        raise SourceError(f"{path} cannot be decoded ({why_unread(error)}); give footage that FFmpeg reads.") from None
