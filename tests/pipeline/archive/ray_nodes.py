"""A real Ray cluster of two nodes on this machine, of one core each, that hears on the loopback alone.

`python -m tests.pipeline.archive.ray_nodes` starts it, prints its address and the process ids of its second node, and
ends it when its standard input ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from tests.pipeline.conftest import ROOT

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0",
    # On a busy machine Ray gives up on its own processes before they have begun.
    "RAY_gcs_server_port_wait_time_s": "300", "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300", "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_period_ms": "1000",
}  # fmt: skip
_HIDE = 'mount -t tmpfs none "$0"; cp "$1" "$0"; shift; exec "$@"'
STORE_BYTES = 80 << 20
_TRIES = 3


class TwoNodes:
    """The cluster, in a process of its own.

    Args:
        hidden: a folder that its nodes see as another one, in which is a copy of `instead`.
        instead: a file.

    Attributes:
        address: of its head.
        second: the process id of the second node's raylet.
        hides: whether the folder is hidden, which root alone can do.
    """

    def __init__(self, hidden: Path | None = None, instead: Path | None = None) -> None:
        self._around: list[str] = []
        self._reason = ""
        if hidden is not None and instead is not None:
            self._around = ["unshare", "--mount", "sh", "-ec", _HIDE, str(hidden), str(instead)]
            if subprocess.run([*self._around, "true"], capture_output=True, check=False).returncode:
                self._around = []
        self.hides = bool(self._around)
        said = next((each for each in map(self._started, range(_TRIES)) if each), None)
        if said is None:
            pytest.skip(f"Ray's own processes did not come up, {_TRIES} times: {self._reason}")
        self.address, self.second = str(said["address"]), int(said["second"])

    def _started(self, _number: int) -> dict[str, Any] | None:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
            self._process = subprocess.Popen(
                [*self._around, sys.executable, "-m", "tests.pipeline.archive.ray_nodes"], cwd=ROOT,
                env={**os.environ, **ENVIRONMENT}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
                text=True, start_new_session=True,
            )  # fmt: skip
            assert self._process.stdout is not None
            for line in self._process.stdout:
                if line.startswith("{"):
                    said: dict[str, Any] = json.loads(line)
                    return said
            self._process.wait()
            complaints.seek(0)
            self._reason = next((line.strip() for line in reversed(complaints.readlines()) if line.strip()), "no word")
        return None

    def below(self) -> list[int]:
        """The process ids of all that belongs to the cluster."""
        return below(self._process.pid)

    def kill_second(self) -> None:
        """kill -9 of all processes of the second node at once, as when its plug is pulled."""
        for pid in [*below(self.second), self.second]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def below(pid: int) -> list[int]:
    """The process ids of all children of a process, and of theirs."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found, looked = [], [pid]
    while looked:
        children = parents.get(looked.pop(), [])
        found += children
        looked += children
    return found


def node() -> dict[str, Any]:
    """How a node is started. Where ports are known it does not wait for its agents, for which it has no patience."""
    ports = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port", "metrics_export_port")
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in ports]
        numbers = [each.getsockname()[1] for each in held]
    own = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.1"}
    return {**own, **dict(zip(ports, numbers, strict=True))}


def main() -> None:
    """Run the cluster until standard input ends."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # sockets have short names
        head = {**node(), "include_dashboard": False, "temp_dir": folder}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        second = cluster.add_node(**node())
        pid = second.all_processes["raylet"][0].process.pid
        print(json.dumps({"address": cluster.address, "second": pid}), flush=True)
        sys.stdin.read()
        cluster.shutdown()


if __name__ == "__main__":
    main()
