"""A process that indexes clips, one at a time: `python -m pipeline.archive.crew.worker DESCRIPTOR`."""

from __future__ import annotations

import logging
import os
from typing import NoReturn

from engines.errors import ModelError, RoadlensError
from pipeline.archive.crew.equipment import Equipment, equipment
from pipeline.archive.indexer import FAULTS, Indexer
from pipeline.archive.inputs.stores import OutOfReachError
from pipeline.archive.jobs import Answer, Job
from pipeline.archive.terms import terms_of
from pipeline.config import Config
from pipeline.process import usable_cores
from pipeline.workers.line import STOP, line_to_parent


class _Worker:
    def __init__(self) -> None:
        self._indexer: Indexer | None = None
        self._share = 0.0

    def open(self, config: Config, workers: int) -> Equipment:
        """Load the engines.

        Args:
            config: the models and stages.
            workers: processes that compute beside each other on this machine; 0 for one a core.
        """
        self._indexer = Indexer(config, workers or usable_cores())
        opened = self._indexer
        return equipment(opened.engines, opened.precisions, terms_of(config), opened.familiar)

    def index(self, job: Job) -> Answer:
        """Look at a clip."""
        if self._indexer is None:
            raise ModelError("no engine is loaded")
        self._share = 0.0
        try:
            return self._indexer.index(job, self._tell)
        except OutOfReachError as error:
            return Answer(reason=str(error), away=True)
        except FAULTS as error:
            logging.getLogger(__name__).debug("%s", job.path, exc_info=True)
            return Answer(reason=str(error) if isinstance(error, RoadlensError) else f"{type(error).__name__}: {error}")

    def _tell(self, share: float) -> None:
        self._share = share

    def share(self) -> float:
        """Which share is done of the clip that is looked at, 0 to 1."""
        return self._share

    def stop(self) -> NoReturn:
        """Leave at once: whatever is under way is done again."""
        os._exit(0)


def main() -> None:
    """Do what the parent asks until it asks to stop, or is gone."""
    worker = _Worker()
    line_to_parent().attend({"open": worker.open, "index": worker.index, "share": worker.share, STOP: worker.stop})


if __name__ == "__main__":
    main()
