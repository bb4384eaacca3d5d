"""The box of the vehicle ahead, and whether there is one, from one picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from engines.errors import SourceError, UsageError
from engines.spec import Metric, ModelSpec
from training.data.augmentation import random_photometry
from training.data.cityscapes_pairs import Split
from training.data.lead_vehicle import LARGEST_ZOOM, LeadVehicles, large_enough, load_lead_vehicles
from training.metrics.boxes import average_precision, paired_iou, yes_accuracy
from training.metrics.calibration import calibration_error, confidence_counts
from training.recipe import Augmentation, EncoderName, EncoderRecipe, Positive, Rate, Share
from training.task import EncoderTask, Outputs, View

if TYPE_CHECKING:
    from torch import Tensor

    from training.models.localizer import Localization, Localizer

UInt8 = NDArray[np.uint8]

CLASSES = (ClassInfo(0, "lead vehicle", (255, 255, 0), thing=True),)

_SHARPNESS = 2.0
"""Factor of the heat map's logits where they weigh the cells' votes: a thousand cells that are nearly sure to see
nothing would otherwise still draw the box a little to the middle."""


class LeadVehicleRecipe(EncoderRecipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run of the lead-vehicle localizer.

    `encoder_stages` of the encoder's five are kept: the last one holds two thirds of the weights and sees nothing of
    the road that the fourth does not. `grid_stride` and `grid_width` are those of the map on which cells vote.
    `share_present` of the pictures trained on show a lead vehicle, of which the data have about a fifth.
    """

    task: str = "lead_vehicle"
    encoder: EncoderName = "mobilenet_v2"
    encoder_stages: Annotated[int, msgspec.Meta(ge=3, le=5)] = 4
    grid_stride: Literal[8, 16] = 8
    grid_width: Positive = 48
    share_present: Share = 0.45
    augmentation: Augmentation = Augmentation(scale=(0.85, LARGEST_ZOOM), aspect=0.2, photometry=0.8)
    box_weight: Rate = 2.0


@dataclass(frozen=True)
class LeadVehicleViews:
    """Random views of pictures with the vehicle ahead: mirrored, zoomed, stretched, shifted, recoloured.

    A view is what a camera of another angle and mounting would have seen on the same road, so the vehicle ahead is the
    same one; the corridor of the labels moves with the picture. Unlike the labels' camera such a one has no known
    vanishing point, so what the network learns to look at is the road.

    Attributes:
        data: the training pictures.
        share_present: how many of the views show a lead vehicle.
        options: ranges of the randomness; zooms above `LARGEST_ZOOM` would show vehicles that nobody told of.
    """

    data: LeadVehicles
    share_present: float
    options: Augmentation

    def __call__(self, index: int, rng: np.random.Generator) -> tuple[UInt8, NDArray[np.float32], NDArray[np.bool_]]:
        """A view: (H, W, 3) uint8, (4,) float32 xyxy as fractions of it, () bool whether there is a vehicle ahead."""
        data, places = self.data, np.flatnonzero(self.data.present)
        if not data.present[index] and len(places):
            # A picture without one gives way to one that has it as often as makes the share right.
            share = len(places) / len(data)
            if rng.random() < max(0.0, (self.share_present - share) / (1 - share)):
                index = int(rng.choice(places))
        height, width = data.photos.shape[1:3]
        for _ in range(8):
            sx, sy, tx, ty = _random_view(rng, self.options)
            mirrored = rng.random() < 0.5
            box = data.boxes[index] * np.array([sx, sy] * 2, np.float32) + np.array([tx, ty] * 2, np.float32)
            area = float(data.areas[index]) * sx * sy
            inside = np.clip(box, 0, 1)
            whole = float(np.prod(inside[2:] - inside[:2])) >= 0.8 * float(np.prod(box[2:] - box[:2]))
            if not area or whole:
                break
        else:
            sx, sy, tx, ty, mirrored = 1.0, 1.0, 0.0, 0.0, False
            inside, area = data.boxes[index], float(data.areas[index])
        matrix = np.array([[sx, 0, tx * width + (sx - 1) / 2], [0, sy, ty * height + (sy - 1) / 2]], np.float32)
        if mirrored:
            matrix[0] = -matrix[0] + np.array([0, 0, width - 1], np.float32)
            inside = inside.copy()
            inside[[0, 2]] = 1 - inside[[2, 0]]
        view = cv2.warpAffine(data.photos[index], matrix, (width, height), flags=cv2.INTER_LINEAR)
        photo = random_photometry(view.astype(np.uint8, copy=False), rng, self.options.photometry)
        return photo, inside.astype(np.float32), np.array(bool(area) and large_enough(inside, area))


def _random_view(rng: np.random.Generator, options: Augmentation) -> tuple[float, float, float, float]:
    """Zoom across and down, and shift in fractions of the view, as `random_geometry` draws them."""
    zoom = float(np.exp(rng.uniform(np.log(options.scale[0]), np.log(options.scale[1]))))
    stretch = float(np.exp(rng.uniform(-np.log1p(options.aspect), np.log1p(options.aspect))))
    sx, sy = zoom * stretch**0.5, zoom / stretch**0.5
    tx, ty = (float(rng.uniform(min(0.0, 1 - s), max(0.0, 1 - s))) for s in (sx, sy))
    return sx, sy, tx, ty


class LeadVehicle(EncoderTask[LeadVehicleRecipe, "Localizer", LeadVehicles]):
    """See `training.task.Task`.

    One map does two things: its highest cell says whether there is a vehicle ahead, and its cells weigh the boxes that
    the cells vote for. A row of figures is [present, score, IoU of the box with the true one].
    """

    recipe_type = LeadVehicleRecipe
    title = "The vehicle ahead"
    score = "presence_ap_times_iou"

    def check(self) -> None:
        super().check()
        recipe, coarsest = self.recipe, 2**self.recipe.encoder_stages
        if recipe.height % coarsest or recipe.width % coarsest:
            # The cells of a grid that does not come out even would be taken for larger than they are.
            raise UsageError(
                f"recipe {recipe.name}: height and width are multiples of {coarsest} with {recipe.encoder_stages} "
                f"encoder stages, {recipe.height}×{recipe.width} is not"
            )
        if recipe.grid_stride > coarsest:
            raise UsageError(
                f"recipe {recipe.name}: {recipe.encoder_stages} encoder stages end at stride {coarsest}, and "
                f"grid_stride = {recipe.grid_stride} is coarser; give more stages or a finer grid"
            )

    def build_model(self) -> Localizer:
        from torch import nn

        from training.models.encoder import make_encoder
        from training.models.localizer import Localizer

        encoder = make_encoder(self.recipe.encoder, stages=self.recipe.encoder_stages)
        model = Localizer(encoder, stride=self.recipe.grid_stride, width=self.recipe.grid_width)
        assert model.votes is not None
        assert model.votes.predict.bias is not None
        # Nearly every cell is empty: begun at a probability of 1 %, they do not rule the first steps (Lin et al. 2017).
        nn.init.constant_(model.votes.predict.bias[4:], math.log(0.01 / 0.99))
        return model

    def load(
        self, folder: Path, split: str, *, size: tuple[int, int] | None = None, cache: Path | None = None,
        skip_broken: bool = False, say: Callable[[str], None] = print,
    ) -> LeadVehicles:  # fmt: skip
        height, width = size or (self.recipe.height, self.recipe.width)
        part = cast("Split", split)
        return load_lead_vehicles(folder, part, height, width, cache, skip_broken=skip_broken, say=say)

    def views(self, fit: LeadVehicles) -> View:
        if not fit.present.any():
            raise SourceError(f"{self.recipe.split} shows no vehicle ahead: there is no box to learn; give more data")
        return LeadVehicleViews(fit, self.recipe.share_present, self.recipe.augmentation)

    def loss(self, model: Localizer, batch: tuple[Tensor, ...], step: int) -> Tensor:  # noqa: ARG002 - the interface
        from training.losses.boxes import binary_focal_loss, box_loss, cell_box_loss, mean_over
        from training.models.encoder import network_input

        pictures, boxes, present = batch
        found = model(network_input(pictures))
        assert found.cell_boxes is not None
        heat = _heat(boxes, present, *found.objectness.shape[1:])
        loss = _quality_focal_loss(found.objectness, heat).sum() / present.sum().clamp_min(1)
        loss = loss + binary_focal_loss(found.objectness.amax((1, 2)), present).mean()
        # GIoU tells boxes apart by their overlap, L1 by the distance of edges (with a factor of ten about as strong).
        each = box_loss(_voted(found), boxes, "giou", 10.0) + cell_box_loss(found.cell_boxes, boxes, "giou", 10.0)
        return loss + self.recipe.box_weight * mean_over(each, present)

    def predict(self, model: Localizer, pictures: Tensor) -> dict[str, Tensor]:
        from training.models.encoder import network_input

        found = model(network_input(pictures))
        scores = found.objectness.flatten(1).amax(1, keepdim=True).sigmoid()
        return {"boxes": _voted(found).clamp(0, 1).unsqueeze(1), "scores": scores}

    def measure(self, outputs: Outputs, data: LeadVehicles, indices: Sequence[int]) -> NDArray[np.float64]:
        picked = list(indices)
        scores = np.asarray(outputs["scores"], np.float64)
        best = scores.argmax(1)
        rows = np.arange(len(picked))
        iou = paired_iou(np.asarray(outputs["boxes"], np.float64)[rows, best], data.boxes[picked].astype(np.float64))
        return np.stack([data.present[picked].astype(np.float64), scores[rows, best], iou], axis=1)

    def truth(self, data: LeadVehicles, index: int) -> Outputs:
        return {"boxes": data.boxes[[index]]} if data.present[index] else {}

    def scores(self, rows: NDArray[Any]) -> dict[str, float]:
        """- `presence_ap`: average precision of "there is a vehicle ahead", by the score.
        - `mean_iou`: of the box where there is one, whatever the score.
        - `presence_ap_times_iou`: their product, which picks the checkpoint.
        - `detection_ap_50`, `…_75`: average precision where a find is right if its box has that IoU.
        - `accuracy`: see `yes_accuracy`.
        - `calibration_error`: of "there is one" and "there is none"; see `training.metrics.calibration`.
        """
        present, score, iou = rows[:, 0] > 0, rows[:, 1], rows[:, 2]
        positives = int(present.sum())
        presence = average_precision(score, present)
        mean_iou = float(iou[present].mean()) if positives else float("nan")
        return {
            "presence_ap": presence,
            "mean_iou": mean_iou,
            "presence_ap_times_iou": presence * mean_iou,
            "detection_ap_50": average_precision(score, present & (iou >= 0.5), positives),
            "detection_ap_75": average_precision(score, present & (iou >= 0.75), positives),
            "accuracy": yes_accuracy(score, present),
            "calibration_error": calibration_error(
                confidence_counts(np.maximum(score, 1 - score), (score >= 0.5) == present)
            ),
        }

    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        recipe = self.recipe
        return ModelSpec(
            name=recipe.name, version=version, task="localization", height=height, width=width, classes=CLASSES,
            outputs={"boxes": "boxes", "scores": "scores"},
            training_data=f"Cityscapes, part {recipe.split!r} of train, {recipe.width}×{recipe.height}; boxes derived "
            "from its labels by the ego corridor (training/data/lead_vehicle.py)",
            licence="weights trained on Cityscapes: non-commercial research and teaching only (cityscapes-dataset.com)",
            metrics=metrics,
        )  # fmt: skip


def _voted(found: Localization) -> Tensor:
    """(N, 4) boxes: the cells' votes weighted by the sharpened heat map."""
    from training.models.localizer import vote

    assert found.cell_boxes is not None
    return vote(found.cell_boxes, _SHARPNESS * found.objectness)


def _heat(boxes: Tensor, present: Tensor, height: int, width: int) -> Tensor:
    """Where the middle of the vehicle is: (N, 4), (N,) → (N, h, w) in 0 to 1, a Gaussian with its peak cell at 1 as in
    CenterNet (Zhou et al. 2019), of a sixth of the box's size and at least half a cell; 0 where there is none."""
    import torch

    device = boxes.device
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    left, top, right, bottom = boxes.float()[:, :, None].unbind(1)
    across = ((x - (left + right) / 2) / ((right - left) / 6).clamp_min(0.5 / width)).square()
    down = ((y - (top + bottom) / 2) / ((bottom - top) / 6).clamp_min(0.5 / height)).square()
    heat = (-0.5 * (across[:, None, :] + down[:, :, None])).exp()
    heat = heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-6)
    return heat * present[:, None, None]


def _quality_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with soft targets, less of it where it is right already (Li et al. 2020, β = 2): any shape."""
    import torch.nn.functional as F

    logits = logits.float()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return entropy * (logits.sigmoid() - target).square()
