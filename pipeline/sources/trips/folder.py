"""What a folder, a glob or a file holds: clips by camera and in order, or pictures; and what of it is left out."""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from engines.errors import SourceError
from pipeline.provenance import without_own
from pipeline.sources.trips.makers import MOMENT, PROXY_SUFFIXES, Recording, recorded_at, recording

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".flv", ".wmv",
    ".3gp", ".ogv", ".mjpeg", ".mjpg", ".h264", ".264", ".hevc", ".h265", ".265", ".asf", ".vob", ".dav",
    ".insv", ".lrv", ".lrf", ".mxf", ".nut", ".y4m", ".gif",
})  # fmt: skip
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm",
})  # fmt: skip

ANY = "any"
"""In place of a camera: all clips as one trip, whatever their names say."""

PROXIES, PICTURES, OTHERS = "proxies", "pictures", "other files"
"""What is left out of a folder of clips."""

_WORDS = frozenset({"front", "rear", "back", "interior", "inside", "cabin", "left", "right"})
_LETTERS = {"f": "front", "r": "rear", "i": "interior"}
_NUMBERED = re.compile(r"(?<![a-z])(?:cam|camera|ch|channel)[\W_]?(\d)(?!\d)")
"""Cameras in names that are no maker's: a word anywhere, a letter at the end, a number behind a word."""

_DCF = re.compile(r"([A-Z][A-Z_]{1,3})\d{4,5}")
"""Names by the rule that cameras of stills and film share (DCF, JEITA CP-3461): the letters are the camera's."""

_TOGETHER = timedelta(seconds=2)
"""Between the beginnings of clips of two cameras of one car; clips are longer."""

_PART = re.compile(r"[\W_]*(part|pt|segment|seg|chunk|chapter)[\W_]*\d+", re.IGNORECASE)
"""What stands behind the time in the name of a recording that was cut into several files."""


@dataclass(frozen=True, slots=True)
class Trip:
    """What an address in the file system stands for.

    Attributes:
        address: of it.
        cameras: clips by camera, in order; the name is empty where it has none. Empty where there are pictures.
        pictures: pictures in order, where there are no clips.
        own: videos that roadlens wrote, which are left out.
        left_out: what else is, by what it is.
        maker: who names clips so; empty where that is not known.
    """

    address: str
    cameras: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    pictures: tuple[Path, ...] = ()
    own: tuple[Path, ...] = ()
    left_out: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    maker: str = ""

    def clips(self, camera: str | None) -> tuple[Path, ...]:
        """The clips of a camera; of the only one where none is named.

        Raises:
            SourceError: there are several and none is named, or not that one.
        """
        names = ", ".join(self.cameras)
        if camera is None:
            if len(self.cameras) > 1:
                raise SourceError(
                    f"{self.address} holds clips of {len(self.cameras)} cameras ({names}); name one of them as `camera`"
                )
            return next(iter(self.cameras.values()))
        if camera not in self.cameras:
            there = f"of {names}" if any(self.cameras) else "that name no camera; leave `camera` out"
            raise SourceError(f"{self.address} holds no clips of a camera {camera!r}, but clips {there}")
        return self.cameras[camera]

    @property
    def footage(self) -> list[Path]:
        """All recordings, proxies and pictures that are there, but for those that roadlens wrote."""
        left_out = (self.left_out.get(kind, ()) for kind in (PROXIES, PICTURES))
        return [file for files in (self.pictures, *self.cameras.values(), *left_out) for file in files]

    def said(self, camera: str | None) -> list[str]:
        """Sentences that say what was found, and what is left out of it; `camera` is the one that is read."""
        sentences = []
        if len(self.cameras) > 1:
            counted = ", ".join(f"{name} ({len(clips)})" for name, clips in self.cameras.items())
            named = f", named as by {self.maker}" if self.maker else ""
            read = f"{camera} is read" if camera else "each is a stream of its own; --camera names one"
            sentences.append(f"{self.address} holds clips of {len(self.cameras)} cameras{named}: {counted}; {read}")
        if self.own:
            there = len(self.own) + sum(map(len, (self.pictures, *self.cameras.values(), *self.left_out.values())))
            sentences.append(
                f"{len(self.own)} of {there} files in {self.address} are videos that roadlens wrote, and are left out: "
                f"{_listed(self.own)}"
            )
        if self.left_out:
            kinds = "; ".join(f"{kind}: {len(files)} ({_listed(files)})" for kind, files in self.left_out.items())
            sentences.append(f"left out of {self.address}: {kinds}")
        return sentences


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files[:3]) + (" …" if files[3:] else "")


def natural_order(path: Path) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """A sort key under which clip_2 stands before clip_10, and what is in day_2 before what is in day_10."""
    return tuple(
        tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name.lower()))
        for name in path.parts
    )


def find_trip(address: str, camera: str | None = None) -> Trip:
    """Look at a file, a folder or a glob.

    Args:
        address: of it.
        camera: `any` for all clips as one camera's.

    Raises:
        SourceError: there is nothing, neither clips nor pictures, or clips that cannot be told apart.
    """
    path = Path(address) if Path(address).exists() else Path(address).expanduser()
    whole = camera == ANY
    if path.is_dir():
        found = sorted((p for p in path.iterdir() if p.is_file()), key=natural_order)
    elif path.exists() or not set("*?[") & set(address):
        is_picture = path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
        return Trip(address, pictures=(path,)) if is_picture else Trip(address, {ANY if whole else "": (path,)})
    else:
        found = sorted((Path(p) for p in glob.glob(str(path)) if Path(p).is_file()), key=natural_order)  # noqa: PTH207  # pathlib globs only below a folder
        if not found:
            raise SourceError(f"no file matches {address!r}; check the pattern")
    found, own = without_own(found)
    return sort_out(address, found, folder=path.is_dir(), own=tuple(own), whole=whole)


def sort_out(
    address: str, found: Sequence[Path], *, folder: bool = True, own: tuple[Path, ...] = (), whole: bool = False
) -> Trip:
    """What files are, by their names alone: they need not be on this machine.

    Args:
        address: where they are.
        found: the files, in natural order.
        folder: whether they are all that a folder holds, rather than what matches a pattern.
        own: those that roadlens wrote, which are not among them.
        whole: whether all clips are one camera's.

    Raises:
        SourceError: neither clips nor pictures, or clips that cannot be told apart.
    """
    by_kind: dict[str, list[Path]] = defaultdict(list)
    for file in found:
        by_kind[_kind(file)].append(file)
    if not folder and set(by_kind) == {OTHERS}:
        by_kind = {"clips": list(found)}  # whoever gives a pattern knows what they are
    clips, small = _without_proxies(by_kind.get("clips", []))
    proxies = [*small, *by_kind.get(PROXIES, [])]
    if not clips:
        clips = [p for p in proxies if p.suffix.lower() in VIDEO_SUFFIXES]
        proxies = [p for p in proxies if p not in clips]
    pictures = by_kind.get(PICTURES, [])
    if not clips and not pictures:
        what = f"the folder {address}" if folder else address
        raise SourceError(f"{what} holds neither video clips nor pictures{_further(Path(address))}")
    left_out = {PROXIES: proxies, PICTURES: pictures if clips else [], OTHERS: by_kind.get(OTHERS, [])}
    counted = {kind: tuple(files) for kind, files in left_out.items() if files}
    if not clips:
        return Trip(address, {}, tuple(pictures), own, counted)
    said = {clip: recording(clip.name) for clip in clips}
    makers = sorted({known.maker for known in said.values() if known is not None})
    if whole:
        cameras = {ANY: _in_order(clips, said)}
    elif makers:
        _refuse_mixture(address, said)
        named = _by_folder({clip: known.camera if known else "" for clip, known in said.items()})
        cameras = {name: _in_order(files, said) for name, files in _by_camera(named.items()).items()}
    else:
        cameras = _by_words(address, clips)
    twins = _twins(said)
    if twins:
        counted[PROXIES] = (*counted.get(PROXIES, ()), *(clip for clip in clips if clip in twins))
    kept = {name: tuple(p for p in files if p not in twins) for name, files in cameras.items()}
    return Trip(address, kept, (), own, counted, makers[0] if len(makers) == 1 else "")


def _kind(file: Path) -> str:
    suffix = file.suffix.lower()
    if file.name.startswith("."):  # such as ._GX010001.MP4, which macOS writes beside GX010001.MP4
        return OTHERS
    if suffix in PROXY_SUFFIXES:
        return PROXIES
    return "clips" if suffix in VIDEO_SUFFIXES else PICTURES if suffix in IMAGE_SUFFIXES else OTHERS


def _further(folder: Path) -> str:
    """Where else clips may be."""
    folder = folder.expanduser()
    inside = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".") if folder.is_dir() else []
    return f"; look into its folders ({', '.join(inside[:3])}{' …' if inside[3:] else ''})" if inside else ""


def _without_proxies(clips: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Clips without the small copies that their maker names so, and those."""
    said = {clip: recording(clip.name) for clip in clips}
    makers = {known.maker for known in said.values() if known is not None and not known.proxy}
    small = {clip for clip, known in said.items() if known is not None and known.proxy and known.maker in makers}
    return [clip for clip in clips if clip not in small], [clip for clip in clips if clip in small]


def _in_order(clips: Iterable[Path], said: Mapping[Path, Recording | None]) -> tuple[Path, ...]:
    """The clips of a camera as they follow each other: by their maker's rule, by the times in their names, or else by
    their names."""
    clips = sorted(clips, key=natural_order)
    known = [said[clip] for clip in clips]
    if len({each.maker if each else "" for each in known}) == 1 and known[0] is not None:
        return tuple(sorted(clips, key=lambda clip: each.order if (each := said[clip]) else ()))
    times = [recorded_at(clip.name) for clip in clips]
    if None in times:
        return tuple(clips)
    return tuple(clip for _, _, clip in sorted(zip(times, range(len(clips)), clips, strict=True)))


def _by_camera(clips: Iterable[tuple[Path, str]]) -> dict[str, list[Path]]:
    cameras: dict[str, list[Path]] = {}
    for clip, camera in clips:
        cameras.setdefault(camera, []).append(clip)
    return {name: cameras[name] for name in sorted(cameras, key=lambda name: (name != "front", name))}


def _by_words(address: str, clips: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Clips of which no maker's rule is known, by the cameras that their names mention."""
    dcf = [match[1].strip("_") for clip in clips if (match := _DCF.fullmatch(clip.stem))]
    named = _by_folder(
        dict(zip(clips, map(str.lower, dcf), strict=True))
        if len(dcf) == len(clips)
        else {clip: _camera_word(clip) for clip in clips}
    )
    several = len(set(named.values()) - {""}) > 1
    if several and "" in named.values():
        nameless = next(clip.name for clip, camera in named.items() if not camera)
        example = next(clip.name for clip, camera in named.items() if camera)
        raise SourceError(
            f"{address} holds clips of several cameras, such as {example}, and others that name none, such as "
            f"{nameless}; {_ways_out(address)}"
        )
    cameras = _by_camera(named.items()) if several else {"": list(clips)}
    for files in cameras.values():
        _refuse_simultaneous(address, files)
    return {name: _in_order(files, dict.fromkeys(files)) for name, files in cameras.items()}


def _by_folder(named: dict[Path, str]) -> dict[Path, str]:
    """The cameras of clips; by their folders (`Front/`, `Back/`) where those are named so, and the clips are not."""
    folders = {clip: camera_words(clip.parent.name) for clip in named}
    by_folder = len(set(named.values())) == 1 and len(set(folders.values())) > 1 and "" not in folders.values()
    return folders if by_folder else named


def camera_words(name: str) -> str:
    """The words for cameras in a name: `left_rear` of `Left Rear 2`; empty where there are none."""
    return "_".join(word for word in re.split(r"[\W\d_]+", name.lower()) if word in _WORDS)


def _camera_word(clip: Path) -> str:
    stem = clip.stem.lower()
    if words := camera_words(stem):
        return words
    number = _NUMBERED.search(stem)
    if number is not None and re.search(r"\d", stem[: number.start()] + stem[number.end() :]):
        return f"cam{number[1]}"
    letter = re.search(r"[\W\d_]([fri])$", stem)
    return _LETTERS[letter[1]] if letter else ""


def _refuse_simultaneous(address: str, clips: Sequence[Path]) -> None:
    """See that no two clips of what is taken for one camera's begin at the same time, or are parts of one recording."""
    begun = sorted((at, clip) for clip in clips if (at := recorded_at(clip.name)) is not None)
    for (at, clip), (next_at, following) in pairwise(begun):
        alike = _without_numbers(clip) == _without_numbers(following)
        together = next_at == at or (next_at - at <= _TOGETHER and not alike)
        if together and not (_is_part(clip) and _is_part(following)):
            raise SourceError(
                f"{address}: {clip.name} and {following.name} began at the same time, and their names do not say which "
                f"camera is which; {_ways_out(address)}"
            )


def _without_numbers(clip: Path) -> str:
    """What a camera calls all of its recordings."""
    return re.sub(r"\d+", "", clip.stem)


def _is_part(clip: Path) -> bool:
    moment = MOMENT.search(clip.stem)
    return moment is not None and _PART.fullmatch(clip.stem[moment.end() :]) is not None


def _refuse_mixture(address: str, said: Mapping[Path, Recording | None]) -> None:
    """See that all clips are named by one maker's rule."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for clip, known in said.items():
        kinds[known.maker if known is not None else ""].append(clip)
    if len(kinds) > 1:
        told = " and ".join(
            f"{len(clips)} {f'as {maker} names them' if maker else 'of other names'} ({clips[0].name}"
            f"{' …' if clips[1:] else ''})"
            for maker, clips in sorted(kinds.items(), reverse=True)
        )
        raise SourceError(f"{address} holds clips of different cameras: {told}; {_ways_out(address)}")


def _ways_out(address: str) -> str:
    folder = address.rstrip("/") if Path(address).expanduser().is_dir() else str(Path(address).parent)
    return f"give each camera a glob of its own, such as '{folder}/*front*', or all of them as one: --camera {ANY}"


def _twins(said: Mapping[Path, Recording | None]) -> set[Path]:
    """Copies of recordings that are there themselves."""
    known = {clip: each for clip, each in said.items() if each is not None}
    themselves = {(each.camera, each.order) for each in known.values() if not each.copy}
    return {clip for clip, each in known.items() if each.copy and (each.camera, each.order) in themselves}
