"""The runtime: it alone owns threads, queues, start, stop and supervision. The stages know nothing of them."""

from __future__ import annotations

from pipeline.runtime.plan import LoadedModel, StreamPlan
from pipeline.runtime.result import RunResult, StreamCounts, StreamResult
from pipeline.runtime.runtime import Runtime

__all__ = ["LoadedModel", "RunResult", "Runtime", "StreamCounts", "StreamPlan", "StreamResult"]
