"""What every bundled recipe exports, built by a real compiler of NVIDIA's, without a GPU."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from engines.tensorrt import rtx
from engines.tensorrt.operators import faults, tensorrt_graph
from engines.tools.trial_build import check
from training.catalogue import bundled_recipes, open_task, read_recipe
from training.export import export

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(rtx.installed() is None, reason="TensorRT for RTX is not installed (the extra gpu-build)"),
]


@pytest.mark.parametrize("name", bundled_recipes())
def test_an_export_builds_in_every_precision_of_a_float_file(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    task = open_task(recipe)
    torch.manual_seed(0)
    spec = task.spec(recipe.height, recipe.width, "1", ())
    if "confidence" in task.optional_outputs:
        spec = msgspec.structs.replace(spec, outputs={**spec.outputs, "confidence": "confidence"})
    path = tmp_path / "model.onnx"
    export(task, task.build_model().eval(), spec, path)
    for precision in ("fp32", "fp16", "bf16"):
        graph = tensorrt_graph(path, precision)
        assert faults(graph) == []
        answer = check(graph.SerializeToString(), spec, 4)
        assert answer.refused is None
        assert answer.plan_bytes > 0
