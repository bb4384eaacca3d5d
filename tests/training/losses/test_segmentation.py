"""Losses against their definitions, written down slowly."""

from __future__ import annotations

import itertools

import pytest
import torch

from engines.classes import IGNORE
from training.losses.segmentation import auxiliary_loss, class_balance, cross_entropy, lovasz_softmax, segmentation_loss


def lovasz_by_sets(logits: torch.Tensor, target: torch.Tensor) -> float:
    """Berman et al. 2018, definition: the Lovász extension of Δ(M) = 1 − |P \\ M| / |P ∪ M|, P the pixels of a class
    and M the set of wrong ones, taken at the vector of errors."""
    classes = logits.shape[1]
    probabilities = logits.softmax(1).permute(0, 2, 3, 1).reshape(-1, classes).tolist()
    labels = target.reshape(-1).tolist()
    known = [i for i, label in enumerate(labels) if label != IGNORE]
    losses = []
    for c in range(classes):
        positives = {i for i in known if labels[i] == c}
        if not positives:
            continue
        errors = {i: 1 - probabilities[i][c] if i in positives else probabilities[i][c] for i in known}
        order = sorted(known, key=lambda i: -errors[i])

        def jaccard_loss(wrong: set[int], positives: set[int] = positives) -> float:
            return 1 - len(positives - wrong) / len(positives | wrong)

        losses.append(
            sum(
                errors[i] * (jaccard_loss(set(order[: k + 1])) - jaccard_loss(set(order[:k])))
                for k, i in enumerate(order)
            )
        )
    return sum(losses) / len(losses)


@pytest.mark.parametrize("seed", range(5))
def test_lovasz_is_its_definition(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 3, 5), generator=generator)  # class 3 is absent
    target[0, 0, :2] = IGNORE
    assert lovasz_softmax(logits, target).item() == pytest.approx(lovasz_by_sets(logits, target), abs=1e-12)


def test_lovasz_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (1, 2, 3), generator=generator)
    assert torch.autograd.gradcheck(lambda x: lovasz_softmax(x, target), (logits,))


def test_a_perfect_prediction_costs_nothing_and_the_opposite_everything() -> None:
    target = torch.tensor([[[0, 1], [1, 0]]])
    right = torch.nn.functional.one_hot(target, 2).permute(0, 3, 1, 2).float() * 200 - 100
    assert lovasz_softmax(right, target).item() == pytest.approx(0, abs=1e-6)
    assert lovasz_softmax(-right, target).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("loss", [lambda x, y: lovasz_softmax(x, y), lambda x, y: cross_entropy(x, y, torch.ones(3))])
def test_nothing_labelled_is_zero_with_a_zero_gradient(loss: object) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((1, 4, 4), IGNORE))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_cross_entropy_is_a_weighted_mean_over_the_labelled_pixels() -> None:
    logits, weights = torch.randn(1, 3, 2, 2), torch.tensor([1.0, 2.0, 5.0])
    target = torch.tensor([[[0, 2], [IGNORE, 1]]])
    log = logits.log_softmax(1)
    terms = [(0, 0, 0, 1.0), (2, 0, 1, 5.0), (1, 1, 1, 2.0)]
    expected = -sum(w * log[0, c, y, x] for c, y, x, w in terms) / 8
    torch.testing.assert_close(cross_entropy(logits, target, weights), expected)


def test_every_pixel_is_in_the_lovasz_sample_of_some_phase() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    seen = torch.zeros(8, 8, dtype=torch.bool)
    for phase in itertools.product(range(4), range(4)):
        logits = torch.randn(1, 2, 8, 8, requires_grad=True)
        both = segmentation_loss(logits, target, torch.ones(2), 1.0, phase)
        sampled = both - segmentation_loss(logits, target, torch.ones(2), 0.0, phase)
        (gradient,) = torch.autograd.grad(sampled, logits)
        touched = gradient.abs().sum((0, 1)) > 1e-7
        assert int(touched.sum()) <= 4
        seen |= touched
    assert seen.all()


def test_class_balance() -> None:
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0], dtype=torch.float64)
    weights = class_balance(shares, power=0.5, limit=6)
    assert (weights * shares).sum().item() == pytest.approx(1, abs=1e-6)  # the loss keeps its scale
    assert (weights.diff() >= 0).all()  # the rarer, the heavier
    assert (weights.max() / weights[2]).item() == pytest.approx(6)  # the median class weighs 1, the limit is 6
    torch.testing.assert_close(class_balance(shares, power=0, limit=6), torch.ones(5))


def test_auxiliary_loss_looks_at_every_fourth_label_pixel() -> None:
    scores, weights = torch.randn(1, 3, 2, 2), torch.ones(3)
    target = torch.randint(0, 3, (1, 16, 16))
    other = target.clone()
    other[:, ::2] = 0  # rows 2, 6, 10, 14 are looked at
    other[:, 2::4] = target[:, 2::4]
    expected = auxiliary_loss(scores, target, weights)
    torch.testing.assert_close(auxiliary_loss(scores, other, weights), expected)
    other[:, 2, 2] = (other[:, 2, 2] + 1) % 3
    assert not torch.isclose(auxiliary_loss(scores, other, weights), expected)
