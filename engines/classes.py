"""Label sets: what the numbers of a class map mean, and in which colour they are drawn."""

from __future__ import annotations

import msgspec

IGNORE = 255
"""The class id of a pixel that has no label; never counted, never drawn."""


class ClassInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One class of a label set.

    `color` is sRGB, (red, green, blue), each 0 to 255. A *thing* is countable (a car); what is not is *stuff* (road).
    """

    id: int
    name: str
    color: tuple[int, int, int]
    thing: bool = False


CITYSCAPES_CLASSES: tuple[ClassInfo, ...] = (
    ClassInfo(0, "road", (128, 64, 128)),
    ClassInfo(1, "sidewalk", (244, 35, 232)),
    ClassInfo(2, "building", (70, 70, 70)),
    ClassInfo(3, "wall", (102, 102, 156)),
    ClassInfo(4, "fence", (190, 153, 153)),
    ClassInfo(5, "pole", (153, 153, 153)),
    ClassInfo(6, "traffic light", (250, 170, 30)),
    ClassInfo(7, "traffic sign", (220, 220, 0)),
    ClassInfo(8, "vegetation", (107, 142, 35)),
    ClassInfo(9, "terrain", (152, 251, 152)),
    ClassInfo(10, "sky", (70, 130, 180)),
    ClassInfo(11, "person", (220, 20, 60), thing=True),
    ClassInfo(12, "rider", (255, 0, 0), thing=True),
    ClassInfo(13, "car", (0, 0, 142), thing=True),
    ClassInfo(14, "truck", (0, 0, 70), thing=True),
    ClassInfo(15, "bus", (0, 60, 100), thing=True),
    ClassInfo(16, "train", (0, 80, 100), thing=True),
    ClassInfo(17, "motorcycle", (0, 0, 230), thing=True),
    ClassInfo(18, "bicycle", (119, 11, 32), thing=True),
)
"""The 19 evaluation classes of Cityscapes by trainId, with the official colours
(cityscapesScripts, `helpers/labels.py`)."""
