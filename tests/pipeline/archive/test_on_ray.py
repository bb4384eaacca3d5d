"""What `--ray` refuses before anything is written, and processes that would not index alike. `tests/resilience` has a
real cluster.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

from engines.errors import ModelError
from pipeline.archive.crew import on_ray
from pipeline.archive.crew.equipment import Equipment, check_alike, check_models, equipment
from tests.pipeline.archive.test_find import TERMS

Roadlens = Callable[..., subprocess.CompletedProcess[str]]

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra `fleet` is not installed")


@needs_ray
@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("card", "card is no address of a Ray cluster; name one as HOST:PORT, or `auto`"),
        ("--every", "--every is no address of a Ray cluster"),
        ("127.0.0.1", "127.0.0.1 is no address"),
        ("127.0.0.1:65536", "127.0.0.1:65536 is no address"),
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265 is no address"),
        ("127.0.0.1:1", "nothing answers at 127.0.0.1:1 within 5 s"),
    ],
)
def test_addresses_of_no_cluster(address: str, sentence: str, tmp_path: Path, roadlens_here: Roadlens) -> None:
    refused(sentence, address, tmp_path, roadlens_here)


def test_ray_is_named_where_it_is_lacking(
    tmp_path: Path, roadlens_here: Roadlens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda _name: None)
    refused("--ray needs the package ray; install it with: pip install", "auto", tmp_path, roadlens_here)


def refused(sentence: str, address: str, tmp_path: Path, roadlens_here: Roadlens) -> None:
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "1.mp4").write_bytes(b"1")
    done = roadlens_here("archive", "card", "a", "--ray", address)
    assert sentence in done.stderr, done.stderr
    assert done.returncode == 2
    assert not (tmp_path / "a").exists()


def test_processes_that_would_not_index_alike() -> None:
    here = equipment(["bits: openvino bf16"], ("bf16",), TERMS)
    check_models(TERMS, here)
    check_alike(here, msgspec.structs.replace(here, machine="there"))
    for other, sentence in (
        (msgspec.structs.replace(here, precisions=("fp32",)), "name one precision with --precision"),
        (
            msgspec.structs.replace(here, machine="there", packages={**here.packages, "av": "1.0"}),
            "and there has 1.0, so that",
        ),
        (msgspec.structs.replace(here, machine="there", familiar=("0f",)), "what is familiar to the model differs"),
    ):
        with pytest.raises(ModelError, match=sentence):
            check_alike(here, other)
    (model, *rest) = here.models
    other = Equipment("there", (), ((model[0], "f" * 64), *rest), ("bf16",), {})
    with pytest.raises(ModelError, match=f"there has the model {model[0]} .f{{12}}., and the archive is made"):
        check_models(TERMS, other)
