"""The network of road users: shapes, decoding against its definition, and a start from an exported segmenter."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

import engines
from engines.errors import ModelError
from engines.spec import read_spec
from training.export import export_graph
from training.models.encoder import make_encoder
from training.models.exported import load_exported
from training.models.graphs import segmenter_graph
from training.models.road_users import REACH, STRIDE, RoadUserNet, boxes_of_cells, decode

DECODER = (16, 16, 16, 16)


def net(seed: int = 0) -> RoadUserNet:
    torch.manual_seed(seed)
    return RoadUserNet(make_encoder("mobilenet_v2"), 19, 8, DECODER, 16).eval()


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 70)])
def test_shapes_at_any_size(height, width):
    tall, wide = -(-height // 32) * 32, -(-width // 32) * 32
    with torch.no_grad():
        scene = net().scene(torch.rand(2, 3, height, width))
    assert scene.phases.shape == (2, 76, tall // 2, wide // 2)
    assert scene.heat.shape == (2, 8, tall // STRIDE, wide // STRIDE)
    assert scene.sides.shape == (2, 4, tall // STRIDE, wide // STRIDE)
    assert (scene.sides > 0).all()


def test_a_fresh_network_takes_one_cell_in_a_hundred_for_a_centre():
    model = net()
    torch.nn.init.zeros_(model.heat[-1].weight)
    with torch.no_grad():
        scene = model.scene(torch.rand(1, 3, 64, 64))
    assert torch.allclose(scene.heat.sigmoid(), torch.tensor(0.01), atol=1e-6)
    assert REACH == 8


def test_every_part_gets_a_gradient():
    model = net().train()
    scene = model.scene(torch.rand(2, 3, 64, 64))
    (scene.phases.square().mean() + scene.heat.square().mean() + scene.sides.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_boxes_of_cells_are_the_distances_from_their_centres():
    sides = torch.zeros(1, 4, 2, 3)
    sides[0, :, 1, 2] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert boxes_of_cells(sides)[0, :, 1, 2].tolist() == [10 - 1, 6 - 2, 10 + 3, 6 + 4]


def test_decoding_against_its_definition():
    rng = np.random.default_rng(0)
    heat, sides = rng.normal(0, 2, (2, 3, 8, 10)), rng.uniform(0.5, 30, (2, 4, 8, 10))
    boxes, scores, labels = (t.numpy() for t in decode(torch.tensor(heat), torch.tensor(sides), 12))
    for picture in range(2):
        peaks = []
        for (label, y, x), logit in np.ndenumerate(heat[picture]):
            around = heat[picture, label, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            if logit == around.max():
                left, top, right, bottom = sides[picture, :, y, x]
                cx, cy = 4 * x + 2, 4 * y + 2
                corners = [(cx - left) / 40, (cy - top) / 32, (cx + right) / 40, (cy + bottom) / 32]
                peaks.append((1 / (1 + np.exp(-logit)), label, np.clip(corners, 0, 1)))
        peaks.sort(key=lambda peak: -peak[0])
        assert len(peaks) > 12
        assert labels[picture].tolist() == [label for _, label, _ in peaks[:12]]
        assert scores[picture] == pytest.approx([score for score, _, _ in peaks[:12]], abs=1e-6)
        assert boxes[picture] == pytest.approx(np.array([corners for _, _, corners in peaks[:12]]), abs=1e-6)


def test_weights_of_an_export_give_its_class_map(tiny_export):
    model = net(seed=5)
    load_exported(model, tiny_export, ("encoder", "decoder", "head"))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    with torch.no_grad():
        phases = model.scene(torch.tensor(pictures).float().permute(0, 3, 1, 2) / 127.5 - 1).phases
        ours = model.class_map(phases).numpy()
    with engines.load(tiny_export, device="cpu", precision="fp32", max_batch=2) as engine:
        theirs = np.stack([one.class_map for one in engine.submit(list(pictures)).result()])
    assert (ours == theirs).mean() > 0.999


def test_a_second_convolution_that_a_file_lacks_changes_nothing(tiny_export, tmp_path):
    lean = RoadUserNet(make_encoder("mobilenet_v2"), 19, 8, DECODER, 16, refined=1).eval()
    assert [len(stage.refine) for stage in lean.decoder] == [3, 0, 0, 0]
    load_exported(lean, tiny_export, ("encoder", "decoder", "head"))
    spec = msgspec.structs.replace(read_spec(tiny_export), name="lean")
    export_graph(segmenter_graph(lean, spec), spec, tmp_path / "lean.onnx")
    full = net(seed=3)
    load_exported(full, tmp_path / "lean.onnx", ("encoder", "decoder", "head"))
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(full.scene(x).phases, lean.scene(x).phases, rtol=1e-4, atol=1e-4)


def test_pixels_of_no_class_are_255():
    torch.manual_seed(0)
    model = RoadUserNet(make_encoder("mobilenet_v2"), 19, 8, DECODER, 16, void=True).eval()
    phases = torch.randn(2, 80, 8, 8)
    with torch.no_grad():
        found = model.class_map(phases)
    scores = torch.nn.functional.pixel_shuffle(phases, 2)
    wanted = scores.argmax(1)
    assert (wanted == 19).any()
    assert torch.equal(found, torch.where(wanted == 19, 255, wanted).to(torch.uint8))


def test_an_export_of_another_network_is_refused(tiny_export, tmp_path):
    other = RoadUserNet(make_encoder("mobilenet_v2"), 19, 8, (16, 16, 16, 24), 16)
    with pytest.raises(ModelError, match=r"decoder\.3\.fuse\.0\.weight has the shape"):
        load_exported(other, tiny_export, ("encoder", "decoder", "head"))
    with pytest.raises(ModelError, match="cannot be read"):
        load_exported(other, tmp_path / "none.onnx", ("encoder",))
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match="is not an ONNX file"):
        load_exported(other, tmp_path / "text.onnx", ("encoder",))
