"""The manifest of an archive: what became of each clip, a JSON line for each step, appended whole and never changed.

The state of an archive is what its lines add up to. A crash can tear the last line alone, which is left out; what it
would have said is done again, with the same result.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from engines.errors import OutputError, SourceError

FILE = "manifest.jsonl"


class Known(msgspec.Struct, frozen=True, tag_field="step", tag="known", omit_defaults=True):
    """A clip was found: `clip` is its id, made of its content, `path` where it is, and the rest is of `Candidate`.
    Where its content could not be read (`unread`) the id is of what its folder says, and holds until it can be.
    """

    clip: str
    path: str
    bytes: int
    version: str
    camera: str
    maker: str = ""
    car: str = ""
    unread: bool = False


class Copied(msgspec.Struct, frozen=True, tag_field="step", tag="copied"):
    """The content of a clip lies at another path, too."""

    clip: str
    path: str
    version: str


class Begun(msgspec.Struct, frozen=True, tag_field="step", tag="begun"):
    """A process began to index a clip; `at` is Unix seconds."""

    clip: str
    at: float


class Failed(msgspec.Struct, frozen=True, tag_field="step", tag="failed", omit_defaults=True):
    """It came to no end: why, and whether its process was killed from outside, which need not be the clip's fault, or
    the clip was away, which is none of it.
    """

    clip: str
    reason: str
    killed: bool = False
    away: bool = False


class Done(msgspec.Struct, frozen=True, tag_field="step", tag="done"):
    """A clip was indexed: the SHA-256 of what is kept of it until it stands in the tables, and what it took."""

    clip: str
    sha256: str
    day: str
    cpu_seconds: float


class File(msgspec.Struct, frozen=True):
    """A file of a table: its size and its SHA-256."""

    bytes: int
    sha256: str


class Published(msgspec.Struct, frozen=True, tag_field="step", tag="published"):
    """The tables of a day and camera were written with these clips and no other; none of them is left where there are
    no files."""

    day: str
    camera: str
    clips: tuple[str, ...]
    files: dict[str, File]


class Named(msgspec.Struct, frozen=True, tag_field="step", tag="named"):
    """Each clip in the tables says which trip it belongs to, and where it is."""


class Again(msgspec.Struct, frozen=True, tag_field="step", tag="again"):
    """All clips are to be indexed anew."""


class Stopped(msgspec.Struct, frozen=True, tag_field="step", tag="stopped"):
    """A clip was being indexed when the run was told to stop."""

    clip: str


Step = Known | Copied | Begun | Failed | Done | Published | Named | Again | Stopped


@dataclass(slots=True)
class ClipState:
    """What became of a clip.

    Attributes:
        known: as it was found last.
        places: the paths at which its content was found, with their versions, without those at which something else
            was found since. One that is not there any more stays: cards are emptied, and disks are unplugged.
        tries: how often indexing it failed.
        kills: how often its process, or the whole run, was killed meanwhile.
        away: how often it could not be had, since the manifest was read.
        reason: of the last failure.
        begun: whether a process is at it, or was when the run was killed.
        done: what was found out, once it was.
        published: day and camera of the tables in which it stands.
    """

    known: Known
    places: dict[str, str] = field(default_factory=dict)
    tries: int = 0
    kills: int = 0
    away: int = 0
    reason: str = ""
    begun: bool = False
    done: Done | None = None
    published: tuple[str, str] | None = None

    @property
    def replaced(self) -> bool:
        """Whether another clip is at each path at which it was."""
        return not self.places


@dataclass(slots=True)
class State:
    """What the lines add up to.

    Attributes:
        clips: by id. Those that were replaced are among them for as long as they stand in a table.
        published: what was written, by day and camera.
        named: whether each clip in the tables says which trip it belongs to, and where it is.
    """

    clips: dict[str, ClipState] = field(default_factory=dict)
    published: dict[tuple[str, str], Published] = field(default_factory=dict)
    named: bool = True
    _at: dict[str, set[str]] = field(default_factory=dict)

    def take(self, step: Step) -> None:
        """Add a step."""
        match step:
            case Known():
                self._know(step)
            case Copied(clip=clip, path=path, version=version):
                if clip in self.clips:
                    self._place(clip, path, version)
            case Published():
                self._publish(step)
                self.named = False
            case Named():
                self.named = True
            case Again():
                self.published.clear()
                self.clips = {
                    clip: ClipState(state.known, state.places)
                    for clip, state in self.clips.items()
                    if not state.replaced
                }
            case Begun(clip=clip) | Failed(clip=clip) | Done(clip=clip) | Stopped(clip=clip):
                if clip in self.clips:
                    _advance(self.clips[clip], step)

    def _know(self, step: Known) -> None:
        state = self.clips.setdefault(step.clip, ClipState(step))
        if state.published is not None and state.known.path != step.path:
            self.named = False
        state.known = step
        self._place(step.clip, step.path, step.version)

    def _place(self, clip: str, path: str, version: str) -> None:
        """A clip is at a path, and what was there before is not."""
        self.clips[clip].places[path] = version
        there = self._at.setdefault(path, set())
        for other in there - {clip}:
            if not self.clips[clip].known.unread or self.clips[other].known.unread:  # else nobody knows what is there
                there.discard(other)
                self._leave(other, path)
        there.add(clip)

    def _leave(self, clip: str, path: str) -> None:
        state = self.clips[clip]
        del state.places[path]
        if state.replaced:
            if state.published is None:
                del self.clips[clip]
        elif state.known.path == path:
            left, version = next(iter(state.places.items()))
            state.known = msgspec.structs.replace(state.known, path=left, version=version)
            self.named = self.named and state.published is None

    def _publish(self, step: Published) -> None:
        place = step.day, step.camera
        before = self.published.get(place)
        for clip in () if before is None else before.clips:
            state = self.clips.get(clip)
            if clip in step.clips or state is None or state.published != place:
                continue
            state.published, state.done = None, None
            if state.replaced:
                del self.clips[clip]
        if step.files:
            self.published[place] = step
        else:
            self.published.pop(place, None)
        for clip in step.clips:
            if clip in self.clips:
                self.clips[clip].published = place

    def lose(self) -> None:
        """Let go of what held for the run before: what it began and neither did nor failed at was killed with it, and
        what was away may be there now.
        """
        for state in self.clips.values():
            state.away = 0
            if state.begun:
                state.begun = False
                state.kills += 1
                state.reason = state.reason or "the run was killed while it was being indexed"


def _advance(state: ClipState, step: Begun | Failed | Done | Stopped) -> None:
    state.begun = False
    match step:
        case Begun():
            state.begun = True
        case Failed(reason=reason, killed=killed, away=away):
            state.reason = reason
            state.kills += killed
            state.away += away
            state.tries += not killed and not away
        case Done():
            state.done, state.reason = step, ""
        case Stopped():
            pass


class Journal:
    """The manifest, opened to be gone on with.

    Args:
        archive: its folder.

    Attributes:
        state: what its lines add up to, with what is appended.

    Raises:
        SourceError: a line in its middle is none.
        OutputError: it cannot be written.
    """

    def __init__(self, archive: Path) -> None:
        self.path = archive / FILE
        self.state, end = _read(self.path)
        self.state.lose()
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}") from None

    def write(self, *steps: Step) -> None:
        """Append steps, and take them into the state. They are handed to the operating system whole: a kill of this
        process loses none.

        Raises:
            OutputError: the disk is full, or cannot be written.
        """
        data = b"".join(msgspec.json.encode(step) + b"\n" for step in steps)
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}; free some space and go on") from None
        for step in steps:
            self.state.take(step)

    def sync(self) -> None:
        """See that what was appended outlives a crash of the machine."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file. Twice is allowed."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read_state(archive: Path) -> State:
    """What the manifest of an archive says, which may be under way.

    Raises:
        SourceError: it is damaged.
    """
    return _read(archive / FILE)[0]


def _read(path: Path) -> tuple[State, int]:
    """The state, and where the last whole line ends."""
    state, end = State(), 0
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return state, end
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    decoder = msgspec.json.Decoder(Step)
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        try:
            step = decoder.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            if end + len(line) == len(data):  # torn by a crash
                break
            raise SourceError(f"{path}, line {number}, is damaged: {error}; the archive must be made anew") from None
        if not line.endswith(b"\n"):
            break
        state.take(step)
        end += len(line)
    return state, end


def by_path(state: State) -> Mapping[tuple[str, int, str], str]:
    """The ids of clips by what their folders say of their files, so that none needs to be read again."""
    return {
        (path, each.known.bytes, version): clip
        for clip, each in state.clips.items()
        if not each.known.unread
        for path, version in each.places.items()
    }
