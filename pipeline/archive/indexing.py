"""Indexing: what is found is given to a crew, what comes back is kept, and the tables are written."""

from __future__ import annotations

import fcntl
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from engines.errors import ModelError, OutputError, SourceError, UsageError
from pipeline.archive.inputs.cameras import told_apart
from pipeline.archive.inputs.content import id_of
from pipeline.archive.inputs.footage import Candidate, look_for
from pipeline.archive.jobs import Crew, Job, Outcome
from pipeline.archive.journal import Again, Begun, ClipState, Copied, Failed, Journal, Known, Stopped, by_path
from pipeline.archive.positions.sidecars import Unused
from pipeline.archive.store import Store
from pipeline.archive.terms import FILE, Terms, check_terms, read_terms, write_terms

PUBLISH_SECONDS = 300.0
"""How often what was found is put into the tables while a run goes on."""

TRIES = 3
"""How often indexing a clip may fail before it is set aside."""

_KILLS = 4
"""How many kills count as a failure: somebody may stop runs again and again, and it is not the clip's fault."""


@dataclass(slots=True)
class Progress:
    """How far a run is.

    Attributes:
        done, clips: clips, of how many that were to be done.
        bytes_done, bytes: of their files, with the shares of those under way.
        seconds: since it began.
    """

    done: int = 0
    clips: int = 0
    bytes_done: float = 0.0
    bytes: int = 0
    seconds: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """About how long it will take; None where that cannot be said yet."""
        return (self.bytes - self.bytes_done) * self.seconds / self.bytes_done if self.bytes_done > 0 else None


@dataclass(slots=True)
class Summary:
    """What a run did.

    Attributes:
        found: clips in the inputs, those of one content once.
        there: of those, how many stood in the archive before.
        indexed: how many were indexed by this run.
        replaced: clips of the archive at whose place another one was found by this run: they stay in the tables, or
            were taken out where that was asked for.
        set_aside: paths and reasons of those that cannot be.
        unused: files with places that were found and of which something could not be used, of what was indexed.
        cpu_seconds: that the clips took.
        stopped: whether it was told to stop.
    """

    found: int = 0
    there: int = 0
    indexed: int = 0
    replaced: int = 0
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    cpu_seconds: float = 0.0
    stopped: bool = False


class Indexing:
    """A run that brings an archive up to what its inputs hold; a context manager. No other process may write to the
    archive meanwhile.

    Args:
        inputs: folders, files, globs and addresses of stores.
        archive: its folder, which is made where there is none.
        terms: by which clips are indexed.
        again: whether all are indexed anew where the archive was made by other terms.
        tries: how often indexing a clip may fail before it is set aside.
        drop_replaced: whether clips are taken out at whose place another one is, which nobody can index again.
        say: told what a person is to know, in sentences.

    Raises:
        SourceError: an input is not there, or there is no clip in any of them.
        UsageError: the folder is something else, or was made by other terms.
        OutputError: it cannot be written, or another process is at it.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        archive: Path,
        terms: Terms,
        *,
        again: bool = False,
        tries: int = TRIES,
        drop_replaced: bool = False,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.archive, self._terms, self._tries, self._say = archive, terms, tries, say
        self._drop_replaced = drop_replaced
        self.summary = Summary()
        self._stack = ExitStack()
        try:
            found = look_for(inputs, archive)  # before anything is written
            self._open(again)
            for sentence in found.said:
                say(sentence)
            if left_out := ", ".join(f"{kind}: {count}" for kind, count in found.left_out.items() if count):
                say(f"left out: {left_out}")
            self._clips = self._known(found.clips)
            self._again(again)
        except BaseException:
            self._stack.close()
            raise
        self._waiting = self._to_do()
        self._under_way: set[str] = set()

    # Opening --------------------------------------------------------------------------------------------------------
    def _open(self, again: bool) -> None:
        _make(self.archive)
        lock = os.open(self.archive / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(f"{self.archive} is being written by another process; wait for it, or stop it") from None
        if not (self.archive / FILE).exists():
            write_terms(self.archive, self._terms)
        if not again:
            check_terms(self.archive, read_terms(self.archive), self._terms)
        self._journal = Journal(self.archive)
        self._stack.callback(self._journal.close)
        self._store = Store(self.archive, self._terms, self._journal, drop_replaced=self._drop_replaced)

    def _known(self, candidates: Sequence[Candidate]) -> list[str]:
        """The ids of the clips that were found, those of one content once; they stand in the manifest."""
        states = self._journal.state.clips
        ids = by_path(self._journal.state)
        places: dict[str, list[Candidate]] = defaultdict(list)
        unread = set()
        for each in candidates:
            clip, was_read = ids.get((each.path, each.bytes, each.version)), True
            if clip is None:
                clip, was_read = id_of(each)
            places[clip].append(each)
            if not was_read:
                unread.add(clip)
        first = {
            clip: next((c for c in found if clip in states and states[clip].known.path == c.path), found[0])
            for clip, found in places.items()
        }
        if twice := len(candidates) - len(first):
            self._say(f"{twice} files have the content of another one, and are indexed once")
        named = dict(zip(first, told_apart(list(first.values())), strict=True))
        if cars := sorted({each.car for each in named.values() if each.car}):
            self._say(
                f"cameras of one name recorded at the same time in different folders; their folders are part of their "
                f"names: {', '.join(cars)}"
            )
        steps: list[Known | Copied] = []
        for clip, each in named.items():
            known, at = (states[clip].known, states[clip].places) if clip in states else (None, {})
            car = each.car if known is None else known.car
            step = Known(clip, each.path, each.bytes, each.version, each.camera, each.maker, car, clip in unread)
            if known != step or each.path not in at:
                steps.append(step)
            steps += [
                Copied(clip, other.path, other.version)
                for other in places[clip]
                if other is not first[clip] and at.get(other.path) != other.version
            ]
        steps.sort(key=lambda step: step.clip not in states)  # who has moved is not replaced by who came to its place
        before = {clip: state.replaced for clip, state in states.items() if state.done is not None}
        self._journal.write(*steps)
        gone = (clip for clip in before if clip not in states or states[clip].replaced)
        self.summary.replaced = sum(self._drop_replaced or not before[clip] for clip in gone)
        return list(named)

    def _again(self, again: bool) -> None:
        """Begin anew where that is asked for and the terms are others."""
        there = read_terms(self.archive)
        if not again:
            return
        states = self._journal.state.clips
        found = set(self._clips)
        missing = [
            state.known.path
            for clip, state in states.items()
            if state.published and clip not in found and not (state.replaced and self._drop_replaced)
        ]
        if missing:
            raise UsageError(
                f"--again would lose {len(missing)} clips of {self.archive} that are not in what is named, such as "
                f"{missing[0]}; name them, too (--drop-replaced gives up those that were recorded over), or name "
                "another archive"
            )
        self._say(f"{self.archive}: all of it is indexed anew" + ("" if there == self._terms else ", by other terms"))
        self._journal.write(Again())
        self._store.clear()
        write_terms(self.archive, self._terms)

    def _to_do(self) -> deque[str]:
        """What is to be indexed: what was never begun first, so that no clip that kills its process holds others up."""
        states = self._journal.state.clips
        lost = self._store.lost()
        if lost:
            self._say(f"{len(lost)} clips are indexed again: files of the archive are damaged or gone")
            self._store.forget(lost)
        wanted = [clip for clip in self._clips if states[clip].done is None]
        self.summary.found, self.summary.there = len(self._clips), len(self._clips) - len(wanted)
        doing = [clip for clip in wanted if not self._is_set_aside(states[clip])]
        return deque(sorted(doing, key=lambda clip: states[clip].tries + states[clip].kills))

    # Running --------------------------------------------------------------------------------------------------------
    @property
    def to_do(self) -> int:
        """How many clips are to be indexed."""
        return len(self._waiting)

    def run(
        self,
        crew: Crew | None,
        show: Callable[[Progress], None] = lambda _progress: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Summary:
        """Index what is to be indexed, and write the tables.

        Args:
            crew: who does it; None where there is nothing to do.
            show: told a few times a second how far it is.
            stopped: whether to stop: clips under way are let go, and the tables are written.

        Raises:
            RoadlensError: no engine can be loaded, or the disk is full. What was indexed is kept.
        """
        if crew is not None:
            try:
                self._index(crew, show, stopped)
            except (ModelError, SourceError):
                self._let_go()
                raise
            self.summary.stopped = bool(self._waiting or self._under_way)
            self._let_go()
        self._store.publish()
        states = self._journal.state.clips
        self.summary.set_aside = [
            (state.known.path, state.reason)
            for state in map(states.__getitem__, self._clips)
            if self._is_set_aside(state)
        ]
        return self.summary

    def _index(self, crew: Crew, show: Callable[[Progress], None], stopped: Callable[[], bool]) -> None:
        states = self._journal.state.clips
        sizes = {clip: max(states[clip].known.bytes, 1) for clip in self._waiting}
        progress = Progress(clips=len(sizes), bytes=sum(sizes.values()))
        began = published = time.monotonic()
        while (self._waiting or self._under_way) and not stopped():
            while self._waiting and crew.free():
                self._begin(crew, self._waiting.popleft())
            for outcome in crew.over(0.25):
                self._take(outcome)
                progress.done += outcome.answer.data is not None
            shares = sum(sizes[clip] * min(share, 1.0) for clip, share in crew.shares().items())
            left = sum(sizes[clip] for clip in (*self._waiting, *self._under_way))
            progress.bytes_done, progress.seconds = progress.bytes - left + shares, time.monotonic() - began
            show(progress)
            if time.monotonic() - published > PUBLISH_SECONDS:
                self._store.publish()
                published = time.monotonic()

    def _let_go(self) -> None:
        """Say of the clips under way that it is no fault of theirs that they come to no end."""
        self._journal.write(*map(Stopped, sorted(self._under_way)))

    def _begin(self, crew: Crew, clip: str) -> None:
        known = self._journal.state.clips[clip].known
        self._journal.write(Begun(clip, round(time.time(), 3)))
        crew.begin(Job(clip, known.path, known.bytes, known.camera, known.car, known.maker))
        self._under_way.add(clip)

    def _take(self, outcome: Outcome) -> None:
        clip, answer = outcome.job.clip, outcome.answer
        self._under_way.discard(clip)
        if answer.data is not None:
            self._store.keep(clip, answer.data, round(answer.cpu_seconds, 3))
            self.summary.indexed += 1
            self.summary.unused += answer.unused
            self.summary.cpu_seconds += answer.cpu_seconds
            return
        self._journal.write(Failed(clip, answer.reason, outcome.killed, answer.away))
        state = self._journal.state.clips[clip]
        if not self._is_set_aside(state):
            self._waiting.append(clip)

    def _is_set_aside(self, state: ClipState) -> bool:
        return state.done is None and (
            max(state.tries, state.away) >= self._tries or state.kills >= self._tries * _KILLS
        )

    def close(self) -> None:
        """Let others write to the archive. Twice is allowed."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make(archive: Path) -> None:
    """Make the folder, or see that it is an archive."""
    try:
        if archive.exists() and not archive.is_dir():
            raise UsageError(f"{archive} is a file; name a folder for the archive behind what is to be indexed")
        strangers = [] if not archive.exists() else [p for p in archive.iterdir() if p.name != ".lock"]
        begun = {p.name for p in strangers} <= {"archive.partial.json"}
        if strangers and not begun and not (archive / FILE).exists():
            raise UsageError(
                f"{archive} is a folder with other files in it, such as {strangers[0].name}, and no archive; name a "
                "new folder behind what is to be indexed"
            )
        archive.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {archive} cannot be made: {error.strerror}") from None
    if not os.access(archive, os.W_OK):
        raise OutputError(f"{archive} may not be written by this user; change its permissions")
