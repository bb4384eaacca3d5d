"""The mark of the lead vehicle: distance and seconds to contact in place of its score."""

from __future__ import annotations

import numpy as np

from pipeline.drawing.labels import Labels
from pipeline.drawing.overlay import Overlay, OverlayStyle
from pipeline.frame import Analysis, Box, Frame
from pipeline.pictures.colors import Colorimetry
from pipeline.pictures.planes import plane
from pipeline.sources.synthetic import SyntheticOptions, as_video_frame

SIZE = (640, 360)
BOX = Box(200, 120, 420, 300, 13, "car", 0.9, "model", track=7)


def test_a_marked_box_says_so_instead_of_its_score() -> None:
    (marked,) = Labels().place([BOX], SIZE, [], {7: "18 m 2.1 s"})
    (other,) = Labels().place([BOX], SIZE, [], {8: "18 m 2.1 s"})
    assert (marked.text, other.text) == ("car 7  18 m 2.1 s", "car 7 0.90")


def test_the_overlay_shows_it_where_notes_are_drawn() -> None:
    grey = np.full((SIZE[1], SIZE[0], 3), 110, np.uint8)
    frame = Frame("drive", 0, 0, SyntheticOptions().time_base, 0.0, 0.0, as_video_frame(grey))
    lead = {"lead": {"track": 7, "label": "car", "across_m": 0.1, "distance_m": 18.2, "contact_s": 2.1}}

    def drawn(*, notes: bool) -> np.ndarray:
        analysis = Analysis(frame, "file", boxes=(BOX,), notes={"ahead": lead})
        return plane(Overlay(OverlayStyle(notes=notes), (), Colorimetry.of(frame.image)).draw(analysis), 0).copy()

    assert (drawn(notes=True) != drawn(notes=False)).sum() > 50
