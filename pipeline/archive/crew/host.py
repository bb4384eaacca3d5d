"""What Ray keeps wherever a clip can be looked at; imported there, so it brings no engine into Ray's own process."""

from __future__ import annotations

from typing import Any, Literal

from engines.errors import RoadlensError
from pipeline.archive.jobs import MODULE
from pipeline.workers.process import WorkerGone, WorkerProcess

Reply = tuple[Literal["done"], Any] | tuple[Literal["refused"], int, str] | tuple[Literal["gone"], str, bool]
"""The answer; or exit code and sentence; or how the process ended, and whether it was killed from outside."""


class Host:
    """An actor of Ray's that has the process which looks at clips as its child: Ray does not say how a process of its
    own ended, and a clip that brings its process down is to be told from one that was killed from outside.
    """

    def __init__(self) -> None:
        self._process = WorkerProcess(MODULE, lambda *_said: None)

    def ask(self, verb: str, *values: Any) -> Reply:
        """Ask the process something."""
        try:
            return "done", self._process.ask(verb, *values).result()
        except WorkerGone as error:
            return "gone", str(error), error.killed
        except RoadlensError as error:
            return "refused", error.exit_code, str(error)
