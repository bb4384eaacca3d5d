"""The localizer: what its heads say, and that the grid's place is what a box comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engines.errors import UsageError
from training.losses.boxes import box_mask
from training.models.encoder import load_encoder, make_encoder
from training.models.localizer import Head, Localizer, read_box, vote

ENCODERS = {
    "mobilenet_v2": {},
    "half as wide": {"width": 0.5},
    "four stages": {"stages": 4},
    "for a classifier": {"classifier_layer": True},
}


def make(head: Head = "votes", stride: int = 16, **options: object) -> Localizer:
    torch.manual_seed(0)
    encoder = make_encoder("mobilenet_v2", width=0.25)
    return Localizer(encoder, stride=stride, width=16, head=head, **options).eval()


@pytest.mark.parametrize("head", ["votes", "objectness"])
@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128)])
def test_boxes_are_boxes_and_the_grid_has_its_stride(head: Head, stride: int, height: int, width: int) -> None:
    model = make(head, stride, presence=True, classes=(2, 37))
    with torch.no_grad():
        found = model(torch.rand(3, 3, height, width) * 2 - 1)
    assert found.objectness.shape == (3, height // stride, width // stride)
    assert found.boxes.shape == (3, 4)
    assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
    assert found.presence.shape == (3,)
    assert [tuple(logits.shape) for logits in found.classes] == [(3, 2), (3, 37)]
    if head == "votes":
        assert found.cell_boxes.shape == (3, height // stride, width // stride, 4)
    else:
        assert found.cell_boxes is None
        assert ((found.boxes >= 0) & (found.boxes <= 1)).all()


def test_heads_that_are_not_asked_for_are_not_there() -> None:
    found = make()(torch.zeros(1, 3, 32, 32))
    assert found.presence is None
    assert found.classes == ()


@pytest.mark.parametrize("name", ENCODERS)
def test_any_encoder_will_do_and_a_picture_more_changes_no_other(name: str) -> None:
    torch.manual_seed(0)
    model = Localizer(make_encoder("mobilenet_v2", **ENCODERS[name]), width=16).eval()
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(pictures).boxes[:1], model(pictures[:1]).boxes, atol=1e-5, rtol=1e-4)


@pytest.mark.seconds
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "efficientnet_lite0"])
def test_a_truncated_encoder_gives_the_first_maps_of_the_whole(name: str, stages: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = make_encoder(name).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    part = make_encoder(name, stages=stages).eval()
    load_encoder(part, tmp_path / "whole.pth")
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for mine, its in zip(part(picture)[:stages], whole(picture), strict=False):
            torch.testing.assert_close(mine, its)
    assert part.channels[:stages] == whole.channels[:stages]
    assert part(picture)[-1].shape[1] == part.channels[-1]
    assert sum(p.numel() for p in part.parameters()) < sum(p.numel() for p in whole.parameters())


def test_a_resnet_comes_in_one_width() -> None:
    with pytest.raises(UsageError, match=r"encoder resnet18 comes in width 1 only, not 0\.5"):
        make_encoder("resnet18", width=0.5)


def test_a_grid_coarser_than_the_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="a grid of stride 32"):
        Localizer(make_encoder("mobilenet_v2", stages=4), stride=32)


def test_votes_are_a_weighted_mean() -> None:
    values = torch.tensor([[[[0.0, 1], [10, 3]]]])
    assert vote(values, torch.tensor([[[0.0, 0.0]]])).tolist() == [[5, 2]]
    assert vote(values, torch.tensor([[[0.0, 100.0]]])).tolist() == [[10, 3]]
    three_to_one = torch.tensor([[[3.0, 1.0]]]).log()
    torch.testing.assert_close(vote(values, three_to_one), torch.tensor([[2.5, 1.5]]))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 11), st.integers(0, 11), st.integers(1, 8), st.integers(1, 8))
def test_a_box_of_whole_cells_is_read_off_exactly(left: int, top: int, width: int, height: int) -> None:
    truth = torch.tensor([[left, top, min(left + width, 14), min(top + height, 14)]]) / 14
    torch.testing.assert_close(read_box(box_mask(truth, 14, 14)), truth, atol=1e-5, rtol=0)


def test_a_lone_cell_elsewhere_moves_a_box_little() -> None:
    truth = torch.tensor([[2.0, 3, 9, 10]]) / 14
    mask = box_mask(truth, 14, 14)
    mask[0, 13, 13] = 1
    assert (read_box(mask) - truth).abs().max() < 0.5 / 14


def test_a_map_without_a_sure_cell_still_gives_the_likeliest_box() -> None:
    truth = torch.tensor([[2.0, 3, 9, 10]]) / 14
    torch.testing.assert_close(read_box(0.4 * box_mask(truth, 14, 14)), truth, atol=1e-4, rtol=0)
    assert read_box(torch.zeros(1, 14, 14)).isfinite().all()


@pytest.mark.parametrize("head", ["votes", "objectness"])
def test_a_localizer_learns_where_a_spot_is(head: Head) -> None:
    """What a pooled head cannot: the same spot at other places. Thirty steps of a tiny network on drawn spots."""
    torch.manual_seed(0)
    encoder = nn.Conv2d(3, 8, 3, stride=4, padding=1)
    encoder.kept, encoder.channels = 2, (8, 8, 8, 8, 8)  # type: ignore[assignment]  # as much of an encoder as is used
    forward = encoder.forward
    encoder.forward = lambda x: [forward(x)] * 5
    model = Localizer(encoder, stride=4, width=16, head=head)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def spots(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        corner = torch.rand(count, 2) * 0.5
        boxes = torch.cat([corner, corner + 0.25 + 0.2 * torch.rand(count, 2)], dim=1)
        return box_mask(boxes, 32, 32)[:, None].expand(-1, 3, -1, -1) * 2 - 1, boxes

    for _ in range(60):
        pictures, truth = spots(16)
        found = model(pictures)
        mask = box_mask(truth, *found.objectness.shape[1:])
        loss = (found.boxes - truth).abs().mean() + nn.functional.binary_cross_entropy_with_logits(
            found.objectness, mask
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pictures, truth = spots(64)
    with torch.no_grad():
        error = (model.eval()(pictures).boxes - truth).abs().mean()
    assert error < 0.06  # always the middle: 0.15
