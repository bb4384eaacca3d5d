"""What a foreign model's own answers mean, worked out in numpy: what the built graph is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.boxes import suppress
from engines.foreign.building import Plan
from engines.foreign.forms import BoxForm, PeakForm, PixelForm
from engines.foreign.original import Answers
from engines.foreign.picture import PictureInput

Float = NDArray[np.float64]

TIE = 1e-4
"""Of two scores nearer to each other than this share of the larger, either may come first."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """(h, w) class ids, and where two classes are as good as equal."""

    ids: NDArray[np.int64]
    ties: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Boxes:
    """(k, 4) xyxy as fractions of the picture, scores falling, class ids."""

    corners: Float
    scores: Float
    labels: NDArray[np.int64]


def pixels_of(answers: Answers, plan: Plan) -> Pixels:
    """The class map that a segmenter's answers to one picture mean."""
    form, picture = plan.form, plan.picture
    assert isinstance(form, PixelForm)
    array = answers[form.output]
    array = array[0] if form.batched else array
    if form.kind == "map":
        ids = array.reshape(form.height, form.width)
        down, across = (
            (np.arange(size) * there / size).astype(int)
            for size, there in ((picture.height, form.height), (picture.width, form.width))
        )
        whole = _inner(ids[down][:, across], picture)
        return Pixels(whole.astype(np.int64), np.zeros(whole.shape, bool))
    channels = array[None] if form.axis is None else (np.moveaxis(array, -1, 0) if form.axis == 3 else array)
    size = (picture.width, picture.height)
    scores = np.stack(
        [cv2.resize(channel.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) for channel in channels]
    )
    scores = np.stack([_inner(channel, picture) for channel in scores])
    scale = np.maximum(np.abs(scores).max(), 1e-6)
    table = np.array(plan.ids)
    if form.kind == "one":
        there = scores[0] > form.level
        return Pixels(table[there.astype(int)], np.abs(scores[0] - form.level) <= TIE * scale)
    ordered = np.sort(scores, 0)
    return Pixels(table[scores.argmax(0)], ordered[-1] - ordered[-2] <= TIE * scale)


def _inner(channel: NDArray[np.generic], picture: PictureInput) -> NDArray[np.generic]:
    return channel[picture.top : picture.top + picture.inner_height, picture.left : picture.left + picture.inner_width]


def boxes_of(answers: Answers, plan: Plan) -> Boxes:
    """The boxes that a detector's answers to one picture mean, the likeliest `most` of them."""
    form = plan.form
    if isinstance(form, PeakForm):
        corners, scores, labels = _peaks(answers, form, plan.picture)
    else:
        assert isinstance(form, BoxForm)
        corners, scores, labels = _rows(answers, form, plan.picture)
    x, y = corners[:, 0::2], corners[:, 1::2]
    picture = plan.picture
    x, y = (x - picture.left) / picture.inner_width, (y - picture.top) / picture.inner_height
    corners = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).clip(0, 1)
    order = np.argsort(-scores, kind="stable")[: max(512, plan.most)]
    corners, scores, labels = corners[order], scores[order], labels[order]
    if isinstance(form, BoxForm) and form.overlap:
        kept = suppress(corners, scores, labels, form.overlap)
        corners, scores, labels = corners[kept], scores[kept], labels[kept]
    if isinstance(form, BoxForm) and form.labels is not None and form.background == "first":
        labels = np.maximum(labels - 1, 0)
    if plan.ids:
        labels = np.array(plan.ids)[labels.clip(0, len(plan.ids) - 1)]
    return Boxes(corners[: plan.most], scores[: plan.most], labels[: plan.most])


def _rows(answers: Answers, form: BoxForm, picture: PictureInput) -> tuple[Float, Float, NDArray[np.int64]]:
    boxes, scores = form.boxes.taken(answers), form.scores.taken(answers)
    if form.labels is None:
        scores = _activated(scores.reshape(len(boxes), -1), form.kind)
        if form.background != "none":
            scores = scores[:, 1:] if form.background == "first" else scores[:, :-1]
        labels, best = scores.argmax(1), scores.max(1, initial=-np.inf)
        if form.objectness is not None:
            best = best * form.objectness.taken(answers).ravel()
    else:
        best = _activated(scores.reshape(-1, 1), form.kind)[:, 0]
        labels = form.labels.taken(answers).ravel().astype(np.int64)
    if form.count is not None:
        best = np.where(np.arange(len(best)) < int(answers[form.count].ravel()[0]), best, 0)
    first, second = boxes[:, :2], boxes[:, 2:]
    if form.corners == "yxyx":
        first, second = first[:, ::-1], second[:, ::-1]
    elif form.corners == "xywh":
        second = first + second
    elif form.corners == "cxcywh":
        first, second = first - second / 2, first + second / 2
    corners = np.concatenate([first, second], 1)
    if form.unit == "fractions":
        corners = corners * np.array([picture.width, picture.height] * 2)
    return corners, best, labels


def _activated(scores: Float, kind: str) -> Float:
    if kind == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-scores)))
    if kind == "softmax":
        powers = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))
    return scores


def _peaks(answers: Answers, form: PeakForm, picture: PictureInput) -> tuple[Float, Float, NDArray[np.int64]]:
    heat = _activated(answers[form.heatmap][0].astype(np.float64), form.kind if form.kind == "sigmoid" else "")
    around = np.stack([cv2.dilate(channel, np.ones((3, 3), np.uint8)) for channel in heat])
    labels, rows, columns = np.nonzero(heat >= around)
    scores = heat[labels, rows, columns]
    centre = np.stack([columns, rows], 1).astype(np.float64)
    if form.offsets is not None:
        centre += answers[form.offsets][0][:, rows, columns].T
    sizes = answers[form.sizes][0][:, rows, columns].T.astype(np.float64)
    stride = np.array([picture.width / form.width, picture.height / form.height])
    sizes = sizes if form.unit == "pixels" else sizes * stride
    centre = centre * stride
    return np.concatenate([centre - sizes / 2, centre + sizes / 2], 1), scores, labels.astype(np.int64)
