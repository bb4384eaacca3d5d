"""A reader in a process of its own: python -m tests.pipeline.messages.reader_process ENDPOINT sub|pull [hold].

Reads to the end of all streams and prints one JSON line: by stream what was received, missed, and a checksum of the
masks. With `hold` it says `holding` after its first message and reads on only when a line comes on standard input; it
says `behind` with the sequence number of the first message that comes after a gap.
"""

from __future__ import annotations

import json
import sys
import zlib

from pipeline.messages.headers import AnalysisMessage
from pipeline.messages.subscriber import Subscriber


def main(endpoint: str, pattern: str, hold: bool) -> None:
    checksums: dict[str, int] = {}
    gaps: list[tuple[int, int]] = []
    with Subscriber(endpoint, pattern, until_end=True, timeout=60) as subscriber:
        for received in subscriber:
            header = received.header
            if hold:
                print("holding", flush=True)
                sys.stdin.readline()
                hold = False
            if received.missed:
                gaps.append((header.sequence - received.missed, received.missed))
                print("behind", header.sequence, flush=True)
            if isinstance(header, AnalysisMessage) and received.class_map is not None:
                before = checksums.get(header.stream, 0)
                checksums[header.stream] = zlib.crc32(received.class_map.tobytes(), before)
        tallies = {
            stream: {"first": t.first, "received": t.received, "missed": t.missed, "frames": t.end and t.end.frames}
            for stream, t in subscriber.tallies.items()
        }
    print(json.dumps({"tallies": tallies, "checksums": checksums, "gaps": gaps}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "hold" in sys.argv)
