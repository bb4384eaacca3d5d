"""Processes on the machines of a Ray cluster: Ray finds room, starts them, and tells of those that are gone.

Nothing here decides what is done where: an actor waits with Ray until a core is free for it, and the run gives a clip
to whichever has none. Which clips are done is known to the manifest alone, so Ray is not asked to try any again.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engines.errors import RoadlensError, UsageError
from pipeline.addresses import is_loopback, strip_credentials
from pipeline.archive.crew.host import Host
from pipeline.archive.crew.processes import Process
from pipeline.config import Config
from pipeline.workers.process import WorkerError, WorkerGone

AUTO = "auto"
"""The cluster that this machine is in."""

_REACH_SECONDS = 5.0
_COUNTED_SECONDS = 5.0
"""How often it is asked how many cores the cluster has."""

_ADDRESS = re.compile(r"(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
_LIKE_ONE = f"name one as HOST:PORT, or `{AUTO}` for the one that this machine is in"


class RayProcess:
    """A process that Ray has placed, or will.

    Args:
        host: the class of actors.
    """

    def __init__(self, host: Any) -> None:
        self._actor = host.remote()

    def ask(self, verb: str, *values: Any) -> Future[Any]:
        answer: Future[Any] = Future()
        reply = self._actor.ask.remote(verb, *values).future()
        reply.add_done_callback(lambda done: _settle(answer, done))
        return answer

    def kill(self) -> None:
        import ray

        ray.kill(self._actor)


class Cluster:
    """Room for processes on a Ray cluster that this process is connected to, one for each core, or for each GPU where a
    model asks for one.

    Args:
        config: the models.
        clips: that are to be done: no more processes than that are started.
        count: how many processes are wanted; 0 for as many as there is room for.
    """

    elsewhere = True
    beside = 0
    lacking = "the Ray cluster has no room for a process yet; waiting (`ray status` says what it has)"

    def __init__(self, config: Config, clips: int, count: int = 0) -> None:
        import ray

        on_gpu = any(model.device.startswith("cuda") for model in config.models)
        self._unit, self._clips, self._count = "GPU" if on_gpu else "CPU", clips, count
        # One call looks at a clip while others ask how far it is.
        self._host = ray.remote(num_cpus=1, num_gpus=int(on_gpu), max_concurrency=4, max_restarts=0)(Host)
        self._room, self._counted_at = 1, float("-inf")

    def most(self) -> int:
        if time.monotonic() - self._counted_at > _COUNTED_SECONDS:
            import ray

            self._room = max(int(ray.cluster_resources().get(self._unit, 0)), 1)
            self._counted_at = time.monotonic()
        return min(self._count or self._room, self._clips)

    def start(self) -> Process:
        return RayProcess(self._host)


def _settle(answer: Future[Any], reply: Future[Any]) -> None:
    """Pass on what Ray has for an answer."""
    error = reply.exception()
    if error is not None:
        answer.set_exception(_said(error))
        return
    match reply.result():
        case "done", value:
            answer.set_result(value)
        case "refused", int(code), str(sentence):
            answer.set_exception(WorkerError(code, sentence))
        case "gone", str(sentence), bool(killed):
            answer.set_exception(WorkerGone(sentence, killed=killed))


def _said(error: BaseException) -> RoadlensError:
    """What Ray says of an actor that does not answer."""
    said = str(error)
    if missing := re.search(r"ModuleNotFoundError: (No module named .*)", said):
        return UsageError(
            f"a machine of the Ray cluster lacks roadlens or a package that it needs ({missing[1]}); install "
            "'.[archive,fleet]' on all of them, in the environment in which `ray start` runs"
        )
    return WorkerGone("is gone, with its machine or alone", killed=True)


@contextmanager
def connected(address: str, *, verbose: bool = False) -> Iterator[None]:
    """Be connected to a Ray cluster.

    Args:
        address: one that `check_cluster` has passed.
        verbose: whether what Ray itself says is shown.

    Raises:
        UsageError: Ray does not connect to it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ending = signal.getsignal(signal.SIGTERM)
    with ExitStack() as stack:
        if not verbose:  # what Ray says of processes that died would go to standard output
            stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        try:
            ray.init(address=address, log_to_driver=verbose, logging_level="INFO" if verbose else "CRITICAL")
        except Exception as error:  # noqa: BLE001  # of many kinds
            raise _refusal(address, error) from None
        finally:
            signal.signal(signal.SIGTERM, ending)  # Ray takes it
        stack.callback(ray.shutdown)
        yield


def _refusal(address: str, error: Exception) -> UsageError:
    if address == AUTO:
        return UsageError(
            f"this machine is in no Ray cluster that runs; start one with `ray start --head`, or {_LIKE_ONE}"
        )
    said = strip_credentials(" ".join(str(error).split()))[:300] or type(error).__name__
    return UsageError(f"{address}: Ray does not connect to this cluster: {said}")


def check_cluster(address: str) -> None:
    """See that Ray is installed, and that something listens at an address; Ray would try for minutes.

    Args:
        address: HOST:PORT of a cluster's head, or `auto`.

    Raises:
        UsageError: it is not, nothing does, or it is no address.
    """
    if find_spec("ray") is None:
        raise UsageError("--ray needs the package ray; install it with: pip install '.[archive,fleet]'")
    if address == AUTO:
        return
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65535:
        raise UsageError(f"{strip_credentials(address)} is no address of a Ray cluster; {_LIKE_ONE}")
    host, port = match["host"].strip("[]"), int(match["port"])
    # Ray takes an address of this machine itself for the one that others have for it.
    tried = [_own_address()] if is_loopback(host) else [host]
    if _listens(tried[0], port):
        return
    if is_loopback(host) and _listens(host, port):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # its word for a cluster of this machine alone
        return
    raise UsageError(
        f"nothing answers at {address} within {_REACH_SECONDS:.0f} s; start the head of the Ray cluster with "
        f"`ray start --head`, or {_LIKE_ONE}"
    )


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), _REACH_SECONDS).close()
    except OSError:
        return False
    return True


def _own_address() -> str:
    """The address of this machine that a packet to the outside would have; none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
