"""What a model is familiar with, told by pictures like those that it was trained on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import engines
from engines.engine import Precision
from engines.errors import UsageError
from engines.novelty.distance import figures, fit
from engines.novelty.familiar import Familiar
from engines.spec import figure_names, read_spec

UInt8 = NDArray[np.uint8]


def familiar_with(path: Path, frames: Iterable[UInt8], source: str) -> Familiar:
    """What a model says of pictures, as figures that the novelty of others is told by; in fp32 where the file is.

    Args:
        path: the ONNX file.
        frames: (h, w, 3) uint8 RGB of any size.
        source: what they are, for people.

    Raises:
        UsageError: the model gives no class map.
        ModelError: the file is no model of the house, or there are too few pictures.
        SourceError: a picture cannot be read.
    """
    spec = read_spec(path)
    names, ids = figure_names(spec), [info.id for info in spec.classes]
    if not names:
        raise UsageError(
            f"{spec.name} gives no class map, and what it says of a picture is not enough to tell how new it is."
        )
    rows = []
    precision: Precision = "fp32" if spec.precision == "fp32" else "auto"
    with closing(engines.load(path, "cpu", precision, 1)) as engine:
        for frame in frames:
            found = engine(frame)
            assert found.class_map is not None
            rows.append(figures(found.class_map, found.confidence, ids))
    return fit(np.array(rows).reshape(-1, len(names)), names, f"{len(rows)} pictures of {source}")
