"""How a run went: its final summary as JSON, and its exit code."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines.errors import OutputError, RoadlensError
from pipeline.files import partial_name
from pipeline.runtime import RunResult
from pipeline.session.session import Session


def summary(session: Session, result: RunResult) -> dict[str, Any]:
    """The final summary as JSON-ready values: streams with their frame counts, stage times in ms a frame, models."""
    frames = sum(s.counts.emitted for s in result.streams)
    return {
        "seconds": round(result.seconds, 3),
        "cpu_seconds": round(result.cpu_seconds, 3),
        "frames": frames,
        "frames_per_second": round(frames / result.seconds, 2) if result.seconds else 0.0,
        "streams": [
            {
                "stream": s.stream,
                "mode": s.mode,
                "ended": s.reason,
                "error": None if s.error is None else str(s.error),
                "frames_in": s.counts.decoded,
                "frames_out": s.counts.emitted,
                "frames_dropped": {f"{stage}/{reason}": n for (stage, reason), n in sorted(s.counts.dropped.items())},
                "frames_looked_at": dict(sorted(s.counts.looked.items())),
                "frames_carried_to": dict(sorted(s.counts.carried.items())),
                "looks_put_off": s.counts.put_off,
                "decode_errors": s.decode_errors,
                "model_faults": {f"{model}/{fault}": n for (model, fault), n in sorted(s.counts.faults.items())},
                "packets_received": s.packets,
                "packets_skipped": dict(sorted(s.skipped.items())),
                "skipped_clips": [{"clip": name, "reason": reason} for name, reason in s.skipped_clips],
                "own_outputs_left_out": s.own_outputs,
                "left_out": dict(s.left_out),
                "recorded": [{"clip": r.clip, "at": _utc(r.at), "by": r.by} for r in s.recorded],
                "encoder": session.encoders.get(s.stream),
                "files": [str(p) for p in session.files(s.stream)],
            }
            for s in result.streams
        ],
        "already_complete": session.already_complete,
        "models": [
            {
                "model": m.name, "backend": m.engine.backend, "precision": m.engine.precision,
                "device": m.device, "every": m.every,
            }
            for m in session.models
        ],
        "stages": {
            name: {
                "calls": t.calls,
                "wall_ms": round(t.wall * 1000 / max(frames, 1), 3),
                "cpu_ms": round(t.cpu * 1000 / max(frames, 1), 3),
            }
            for name, t in sorted(result.stages.items())
        },
    }  # fmt: skip


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def write_summary(target: str, values: dict[str, Any]) -> None:
    """Write the summary to a file, or to standard output for `-`.

    Raises:
        OutputError: the file cannot be written.
    """
    text = json.dumps(values, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    path = Path(target)
    try:
        if path.exists() and not path.is_file():  # such as /dev/stderr
            path.write_text(text)
        else:
            partial_name(path).write_text(text)
            partial_name(path).replace(path)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}") from None


def exit_code(result: RunResult) -> int:
    """0 when every stream came to its end, 130 when the run was interrupted, else the first error's code."""
    error = result.error
    if isinstance(error, RoadlensError):
        return error.exit_code
    if error is not None:
        return 1
    return 130 if any(s.reason == "stopped" for s in result.streams) else 0
