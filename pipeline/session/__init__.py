"""Sessions: a run from its configuration, and one that serves; opened and checked before anything is written."""

from __future__ import annotations

from pipeline.session.serving import ServingSession
from pipeline.session.session import Session
from pipeline.session.shared import Part
from pipeline.session.stream import RunningStream

__all__ = ["Part", "RunningStream", "ServingSession", "Session"]
