"""Who looks at clips: processes with engines of their own, on this machine or elsewhere; one that dies is replaced."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from engines.errors import ModelError, RoadlensError, SourceError
from pipeline.archive.crew.equipment import Equipment, check_alike, check_models
from pipeline.archive.inputs.stores import OutOfReachError, check_reach, is_store
from pipeline.archive.jobs import MODULE, Answer, Job, Outcome
from pipeline.archive.terms import Terms
from pipeline.config import Config
from pipeline.workers.process import WorkerGone, WorkerProcess

SILENT_SECONDS = 180.0
"""How long a clip may not get on before its process is ended."""

_ASKED_SECONDS = 0.5
"""How often a process is asked how far its clip is."""

_PATIENCE = 30.0
"""Seconds without any process behind which it is said what is waited for."""

_MOST_DEATHS = 5
"""Processes that may die in a row before they have loaded their engines, for each that there can be: all of a machine
go with it.
"""


class Process(Protocol):
    """A process that does what `pipeline.archive.crew.worker` does, wherever it is."""

    def ask(self, verb: str, *values: Any) -> Future[Any]:
        """Ask something; the future has the answer, a `RoadlensError` or `WorkerGone`."""
        ...

    def kill(self) -> None:
        """End it at once. Twice is allowed."""
        ...


class Place(Protocol):
    """Where processes are."""

    @property
    def elsewhere(self) -> bool:
        """Whether they may be on other machines than this one."""
        ...

    @property
    def beside(self) -> int:
        """How many compute beside each other on one machine; 0 for one a core."""
        ...

    @property
    def lacking(self) -> str:
        """Why there may be no process for a while, as a sentence."""
        ...

    def most(self) -> int:
        """How many there can be now."""
        ...

    def start(self) -> Process:
        """One more of them; it may be a while until it answers."""
        ...


@dataclass(frozen=True)
class Here:
    """This machine.

    Attributes:
        count: how many processes there are.
    """

    count: int
    elsewhere = False
    lacking = "no process has loaded its engines yet"

    @property
    def beside(self) -> int:
        return self.count

    def most(self) -> int:
        return self.count

    def start(self) -> Process:
        return WorkerProcess(MODULE, lambda *_said: None)


@dataclass(eq=False)
class _Member:
    process: Process
    opened: Future[Equipment]
    ready: bool = False
    job: Job | None = None
    answer: Future[Answer] | None = None
    asked: Future[float] | None = None
    asked_at: float = 0.0
    share: float = 0.0
    moved_at: float = field(default_factory=time.monotonic)
    ended_for: str = ""


class Processes:
    """A crew of processes that are alike.

    Args:
        config: the models and stages.
        terms: by which the archive is made.
        place: where the processes are.
        say: told which engines there are, and what is waited for.
    """

    def __init__(
        self, config: Config, terms: Terms, place: Place, say: Callable[[str], None] = lambda _text: None
    ) -> None:
        self._config, self._terms, self._place, self._say = config, terms, place, say
        self._members: list[_Member] = []
        self._equipment: Equipment | None = None
        self._deaths = 0
        self._alone_since: float | None = time.monotonic()

    def free(self) -> int:
        return sum(member.ready and member.job is None for member in self._members)

    def begin(self, job: Job) -> None:
        member = next(each for each in self._members if each.ready and each.job is None)
        member.job, member.share, member.asked, member.ended_for = job, 0.0, None, ""
        member.moved_at = member.asked_at = time.monotonic()
        member.answer = member.process.ask("index", job)

    def over(self, seconds: float) -> list[Outcome]:
        self._fill()
        waited: list[Future[Any] | None] = [m.answer if m.ready else m.opened for m in self._members]
        wait([each for each in waited if each is not None], seconds, FIRST_COMPLETED)
        outcomes = []
        for member in list(self._members):
            if not member.ready:
                if member.opened.done():
                    self._open(member)
            elif member.job is not None and member.answer is not None:
                if member.answer.done():
                    outcomes.append(self._over(member, member.job, member.answer))
                else:
                    self._watch(member)
        self._tell_of_patience()
        return outcomes

    def shares(self) -> dict[str, float]:
        return {member.job.clip: member.share for member in self._members if member.job is not None}

    def close(self) -> None:
        members, self._members = self._members, []
        for member in members:
            member.process.kill()

    # Members --------------------------------------------------------------------------------------------------------
    def _fill(self) -> None:
        for _ in range(self._place.most() - len(self._members)):
            process = self._place.start()
            self._members.append(_Member(process, process.ask("open", self._config, self._place.beside)))

    def _open(self, member: _Member) -> None:
        """Its engines are loaded, or it died meanwhile."""
        try:
            found = member.opened.result()
        except WorkerGone as error:
            self._let_go(member)
            self._deaths += 1
            if self._deaths >= _MOST_DEATHS * self._place.most():
                raise ModelError(
                    f"{self._deaths} processes died while they loaded the models; the last one {error}"
                ) from None
            return
        except RoadlensError as error:
            failed = ModelError(str(error))
            failed.exit_code = error.exit_code
            raise failed from None
        check_models(self._terms, found)
        if self._equipment is None:
            self._equipment = found
            for engine in found.engines:
                self._say(engine)
        check_alike(self._equipment, found)
        member.ready, self._deaths = True, 0

    def _watch(self, member: _Member) -> None:
        """Ask it how far it is; end it where it does not get on."""
        now = time.monotonic()
        if member.asked is not None and member.asked.done() and member.asked.exception() is None:
            if member.asked.result() != member.share:
                member.share, member.moved_at = member.asked.result(), now
            member.asked = None
        if member.asked is None and now - member.asked_at > _ASKED_SECONDS:
            member.asked, member.asked_at = member.process.ask("share"), now
        if now - member.moved_at > SILENT_SECONDS:
            member.ended_for, member.moved_at = f"it did not get on for {SILENT_SECONDS:.0f} s", now
            member.process.kill()

    def _over(self, member: _Member, job: Job, answered: Future[Answer]) -> Outcome:
        member.job = member.answer = None
        try:
            answer = answered.result()
        except WorkerGone as error:
            self._let_go(member)
            said = member.ended_for or f"its process {error}"
            return Outcome(job, Answer(reason=said), killed=error.killed and not member.ended_for)
        except RoadlensError as error:
            return Outcome(job, Answer(reason=str(error)))
        if answer.away and self._place.elsewhere and _is_here(job):
            raise SourceError(
                f"a machine of the cluster does not see what this one does: {answer.reason}; name folders that all of "
                "them have under the same path, or addresses of a store"
            )
        return Outcome(job, answer)

    def _let_go(self, member: _Member) -> None:
        self._members.remove(member)
        member.process.kill()

    def _tell_of_patience(self) -> None:
        if any(member.ready for member in self._members):
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > _PATIENCE:
            self._alone_since = float("inf")
            self._say(self._place.lacking)


def _is_here(job: Job) -> bool:
    """Whether this machine can read a clip."""
    if is_store(job.path):
        return False
    try:
        check_reach(Path(job.path), job.bytes)
    except OutOfReachError:
        return False
    return True
