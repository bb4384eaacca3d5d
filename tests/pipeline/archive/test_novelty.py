"""How new a clip is to the model, as the archive has it: by its pictures' median, null where nothing tells."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("duckdb")

from engines.novelty.familiar import Familiar, write_beside
from pipeline.archive.indexer import Indexer
from pipeline.archive.jobs import Job
from pipeline.archive.reading import Archive
from pipeline.archive.rows import ClipRow, decode
from pipeline.archive.terms import terms_of
from pipeline.config import Config, ModelConfig
from tests.footage import write_clip
from tests.pipeline.analysis.test_novelty import FAMILIAR, patches
from tests.pipeline.archive.made_up import BEGUN, clip, put

SECONDS, FPS = 5, 20


def configured(model: Path) -> Config:
    return Config(models=(ModelConfig(str(model), device="cpu", every=5),))


def indexed(model: Path, path: Path) -> ClipRow:
    with Indexer(configured(model)) as indexer:
        answer = indexer.index(Job("0001", str(path), path.stat().st_size, "main", "", ""))
    assert answer.data is not None
    return decode(answer.data).clip


def written(path: Path, low: int = 0, high: int = 256) -> Path:
    """A clip of patches of colours from `low` to `high`, another one each second."""
    pictures = [patches(index // FPS, low, high) for index in range(SECONDS * FPS)]
    big = [np.asarray(cv2.resize(each, (128, 64), interpolation=cv2.INTER_NEAREST), np.uint8) for each in pictures]
    write_clip(path, frames=SECONDS * FPS, fps=FPS, size=(128, 64), pictures=big)
    return path


@pytest.fixture
def model(segmenter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(segmenter, tmp_path))


def test_a_clip_has_the_median_of_its_pictures(model: Path, tmp_path: Path) -> None:
    usual, dark = written(tmp_path / "usual.mp4"), written(tmp_path / "dark.mp4", 0, 60)
    assert indexed(model, usual).novelty is None
    known = terms_of(configured(model))
    write_beside(model, FAMILIAR)
    assert terms_of(configured(model)) == known  # an archive that is there goes on
    new, old = indexed(model, dark).novelty, indexed(model, usual).novelty
    assert new is not None
    assert old is not None
    assert 0 < old < FAMILIAR.limit < new
    assert indexed(model, dark).novelty == new


def test_processes_say_by_what_they_tell_it(model: Path) -> None:
    with Indexer(configured(model)) as indexer:
        assert indexer.familiar == ("",)
    write_beside(model, FAMILIAR)
    with Indexer(configured(model)) as indexer:
        (digest,) = indexer.familiar
    other = Familiar(**{name: getattr(FAMILIAR, name) for name in FAMILIAR.__struct_fields__} | {"source": "others"})
    write_beside(model, other)
    with Indexer(configured(model)) as indexer:
        assert "" != indexer.familiar[0] != digest


def test_tables_have_it_and_those_from_before_it_are_read_without(tmp_path: Path) -> None:
    archive = put(tmp_path / "a", [clip(1, BEGUN, [], novelty=1.25), clip(2, BEGUN, [])])
    assert dict(archive.rows("SELECT clip, novelty FROM clips")) == {"0001": 1.25, "0002": None}
    (path,) = (tmp_path / "a" / "clips").rglob("*.parquet")
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["novelty"]), path)
    old = Archive(tmp_path / "a")
    assert old.rows("SELECT DISTINCT novelty FROM clips") == [(None,)]
    assert old.clips["novelty"].null_count == 2
