"""Work that may never end: opening a source, whose disk may be a network's that is gone, or whose pipe nobody fills.

It is done in threads of its own. Those that answer all other requests are never held up by it, nor is the end of the
process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from pipeline.serve.service import NotReady

T = TypeVar("T")

MOST = 16
"""Pieces of work at once."""

PATIENCE = 30.0
"""Seconds after which a client is told that it takes longer."""


class Openings:
    """Threads for work that may never end.

    Args:
        most: of them at once.
        patience: seconds that a client waits for the end of a piece.
    """

    def __init__(self, most: int = MOST, patience: float = PATIENCE) -> None:
        self._free, self._most, self._patience = threading.BoundedSemaphore(most), most, patience

    async def run(self, work: Callable[[], T]) -> T:
        """Do a piece of work, and give what it gives.

        Raises:
            NotReady: `most` pieces hang, or it takes longer than `patience`: it is not broken off.
        """
        if not self._free.acquire(blocking=False):
            raise NotReady(f"{self._most} sources are being opened or closed and do not answer; try again later")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def tell(set_: Callable[[Any], None], value: Any) -> None:
            if not done.done():
                set_(value)

        def work_on() -> None:
            say: tuple[Callable[[Any], None], Any]
            try:
                say = done.set_result, work()
            except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
                say = done.set_exception, error
            finally:
                self._free.release()
            with suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(tell, *say)

        threading.Thread(target=work_on, name="opening", daemon=True).start()
        try:
            return await asyncio.wait_for(done, self._patience)
        except TimeoutError:
            raise NotReady(
                f"the source has not answered within {self._patience:g} s; GET /api/v1/streams tells when it has"
            ) from None
