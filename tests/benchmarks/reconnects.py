"""A camera that flaps a thousand times: threads, descriptors and memory stay where they were.

    python tests/benchmarks/reconnects.py [--reconnects 1000]

The camera is a local TCP server that sends a few pictures of MPEG transport stream and closes. Memory is counted from
the hundredth reconnect on, when every pool has its size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline.sources.live.address import LiveOptions
from pipeline.sources.live.camera import Camera
from pipeline.sources.live.connection import Reconnect
from tests.footage import write_clip
from tests.pipeline.cameras import TcpCamera, transport_stream

SETTLED = 100


def resources() -> tuple[int, int, float]:
    """Threads, descriptors and resident megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir())), pages * 4096 / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reconnects", type=int, default=1000)
    wanted = max(parser.parse_args().reconnects, SETTLED + 1)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, frames=12, size=(320, 180), gop=6)
        pieces = transport_stream(clip)
    flapping = LiveOptions(latency_bound=3600, reconnect=Reconnect(first=0, longest=0, at_start="wait"))
    rows: list[tuple[int, int, int, float]] = []
    began = time.monotonic()
    with TcpCamera(pieces, rate=0) as camera, Camera("flapper", camera.url, flapping) as source:
        seen = 0
        print("reconnects  threads  descriptors  resident MB")
        for _frame in source:
            reconnects = source.reconnects
            if reconnects >= seen + SETTLED:
                seen = reconnects - reconnects % SETTLED
                rows.append((reconnects, *resources()))
                print("{:10d}  {:7d}  {:11d}  {:11.1f}".format(*rows[-1]), flush=True)
            if reconnects >= wanted:
                break
    seconds = time.monotonic() - began
    grown = rows[-1][3] - rows[0][3]
    print(f"{wanted} reconnects in {seconds:.0f} s; after the first {SETTLED}: {grown:+.1f} MB resident")
    flat = max(r[1] for r in rows) - rows[0][1] <= 2 and max(r[2] for r in rows) - rows[0][2] <= 4 and grown < 5
    print("flat" if flat else "NOT FLAT")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
