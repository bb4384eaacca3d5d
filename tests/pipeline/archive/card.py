"""A card as cameras and their owners leave it: three cameras, gaps, wrong clocks, clips that nobody can read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.footage import write_clip

POISON = ("2023_0101_130000_0090F.MP4", "2023_0101_130100_0091F.MP4", "2023_0101_130200_0092R.MP4")
"""Of no bytes, of something else, and cut off at its beginning."""


def write_card(folder: Path, clips: int = 3, frames: int = 30) -> list[Path]:
    """Write clips of three cameras; the good ones come back.

    Args:
        folder: of the card.
        clips: of each camera.
        frames: of each clip.
    """
    written = []
    for number, camera in enumerate(("F", "R")):
        for index in range(clips):
            # A pause of ten minutes behind the second clip; the fourth has a clock that was never set.
            year, minute = (1980, 0) if index == 3 else (2023, index + 10 * (index > 1))
            path = folder / "DCIM" / "Movie" / f"{year}_0101_12{minute:02d}00_{index:04d}{camera}.MP4"
            written.append(_clip(path, frames, 100 * number + index))
    for index in range(clips):
        path = folder / "phone" / f"clip_{index}.mp4"
        written.append(_clip(path, frames, 200 + index))
        os.utime(path, (1_700_000_000 + 60 * index,) * 2)
    movies = folder / "DCIM" / "Movie"
    (movies / POISON[0]).write_bytes(b"")
    (movies / POISON[1]).write_bytes(b"no video at all" * 1000)
    (movies / POISON[2]).write_bytes(written[0].read_bytes()[:600])
    (folder / "DCIM" / "note.txt").write_text("not mine")
    (folder / "System Volume Information").mkdir()
    shutil.copy(written[0], folder / "System Volume Information" / "2023_0101_120000_0000F.MP4")
    return written


def _clip(path: Path, frames: int, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, frames=frames, size=(128, 72), seed=seed)
    return path


def contents(archive: Path) -> dict[str, bytes]:
    """All tables and thumbnails of an archive."""
    return {
        str(path.relative_to(archive)): path.read_bytes()
        for folder in ("frames", "objects", "events", "clips", "thumbnails")
        for path in sorted((archive / folder).rglob("*"))
        if path.is_file()
    }
