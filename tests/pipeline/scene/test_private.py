"""Plates and heads of the drive: where the picture shows them, and of things that it shows."""

from __future__ import annotations

from pipeline.scene.drive import SyntheticScene


def test_plates_and_heads_lie_on_what_the_picture_shows() -> None:
    scene = SyntheticScene(640, 360, 25, seed=2)
    found = {"plate": 0, "head": 0}
    for index in (0, 120):
        things = {box.track: box for box in scene.frame(index)[2]}
        for part in scene.private(index):
            found[part.label] += 1
            thing = things[part.track]
            assert thing.class_id == part.class_id
            assert thing.label in (("person", "rider") if part.label == "head" else ("car", "truck", "bus"))
            assert thing.x1 - 1 <= part.x1 < part.x2 <= thing.x2 + 1
            assert thing.y1 - 1 <= part.y1 < part.y2 <= thing.y2 + 1
            middle = (part.y1 + part.y2) / 2
            if part.label == "head" and thing.y2 - thing.y1 > 2 * (thing.x2 - thing.x1):
                assert middle < thing.y1 + 0.4 * (thing.y2 - thing.y1)
    assert min(found.values()) > 3
