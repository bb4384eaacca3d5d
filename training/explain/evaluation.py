"""Methods side by side on labelled pictures: do the maps point at the pet, does the network hang on what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import SourceError
from training.data.oxford_pet import BREEDS, SPECIES, Pets
from training.explain.box import ChosenRule, box_iou, choose_rule, fit_box
from training.explain.heat.methods import Method, heat_map
from training.explain.heat.occlusion import Occlusion
from training.explain.networks.network import Network, to_tensor
from training.explain.randomisation import randomise
from training.explain.scores import (
    best_box_ious,
    deletion_and_insertion,
    interval,
    mask_iou,
    max_box_acc_v2,
    points_into,
    points_onto,
)
from training.explain.targets import Target, choose_target

Say = Callable[[str], None]


class Figure(msgspec.Struct, frozen=True):
    """A figure with its 95 % bootstrap interval over pictures."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


class MethodScores(msgspec.Struct, frozen=True):
    """One method's line.

    Attributes:
        method: of the heat map; `mean box, centre` uses no network.
        rule: by which boxes were fitted, and where it was chosen; None for what has none.
        pointing_box: the pointing game with the head's box.
        pointing_pet: the same with the trimap's pet.
        box_iou: mean IoU of the fitted box with the head's.
        mask_iou: mean IoU of what is hotter than the rule's threshold with the pet.
        max_box_acc_v2: see `training.explain.scores.max_box_acc_v2`.
        deletion, insertion: areas, see `training.explain.scores.deletion_and_insertion`.
        rank_correlation, ssim: with the map before, one for each step of `spoilt`; means over the first pictures.
    """

    method: str
    rule: ChosenRule | None
    pointing_box: Figure
    pointing_pet: Figure
    box_iou: Figure
    mask_iou: Figure | None
    max_box_acc_v2: Figure | None
    deletion: Figure | None
    insertion: Figure | None
    rank_correlation: tuple[float, ...] = ()
    ssim: tuple[float, ...] = ()


class Evaluation(msgspec.Struct, frozen=True):
    """Methods on one split.

    Attributes:
        model: the network's name.
        target: how the target of a picture was chosen, in words.
        pictures: scored.
        split: of the data.
        protocol: the data's, in words.
        spoilt: shares of the layers that were shuffled.
        spoilt_pictures: number of pictures of the randomisation test.
        lines: one a method.
    """

    model: str
    target: str
    pictures: int
    split: str
    protocol: str
    spoilt: tuple[float, ...]
    spoilt_pictures: int
    lines: tuple[MethodScores, ...]

    def markdown(self) -> str:
        """Two tables for people: scores, and the randomisation test."""
        about = (
            f"{self.model}, {self.target}: {self.pictures} pictures of `{self.split}`; {self.protocol}. Box rules were "
            "chosen on pictures set aside, MaxBoxAccV2 takes the best threshold by its definition. In brackets 95 % "
            "bootstrap intervals over pictures."
        )
        rows = [
            about,
            "",
            "| method | box IoU | pointing, head | pointing, pet | mask IoU | MaxBoxAccV2 | deletion ↓ | insertion ↑ |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for line in self.lines:
            figures = (
                line.box_iou, line.pointing_box, line.pointing_pet, line.mask_iou, line.max_box_acc_v2, line.deletion,
                line.insertion,
            )  # fmt: skip
            rows.append(f"| {line.method} | {' | '.join('–' if f is None else str(f) for f in figures)} |")
        if self.spoilt:
            heads = " | ".join(f"{share:.0%}" for share in self.spoilt)
            about = (
                "Likeness to the trained network's map with that share of the layers shuffled, from the output on: "
                f"rank correlation / SSIM, means of {self.spoilt_pictures} pictures; a map that stays like itself "
                "shows the picture, not the network."
            )
            rows += [
                "",
                about,
                "",
                f"| method | {heads} |",
                "|---|" + "---|" * len(self.spoilt),
            ]
            for line in self.lines:
                if line.ssim:
                    pairs = zip(line.rank_correlation, line.ssim, strict=True)
                    rows.append(f"| {line.method} | {' | '.join(f'{r:.2f} / {s:.2f}' for r, s in pairs)} |")
        return "\n".join(rows) + "\n"


@dataclass(frozen=True)
class Options:
    """How an evaluation is made.

    Attributes:
        methods: to compare.
        occlusion: its grid.
        target: what is explained of every picture, see `choose_target`; `truth` for each picture's own breed, or
            species; None for what the network predicts.
        layer: of Grad-CAM.
        spoilt_steps: of the randomisation test; 0 leaves it out.
        spoilt_pictures: number of pictures of it.
    """

    methods: Sequence[Method]
    occlusion: Occlusion
    target: str | None = None
    layer: str | None = None
    spoilt_steps: int = 4
    spoilt_pictures: int = 8


def with_boxes(pets: Pets, limit: int | None = None) -> Pets:
    """The pictures that have a box, or `limit` of them, spread evenly.

    Raises:
        SourceError: none has one.
    """
    places = np.flatnonzero(pets.boxed)
    if not len(places):
        raise SourceError("none of these pictures has a head box; unpack annotations.tar.gz with its xmls/")
    if limit is not None and limit < len(places):
        places = places[np.linspace(0, len(places) - 1, limit).round().astype(int)]
    return replace(
        pets,
        photos=pets.photos[places],
        names=tuple(pets.names[place] for place in places),
        breeds=pets.breeds[places],
        boxes=pets.boxes[places],
        trimaps=None if pets.trimaps is None else pets.trimaps[places],
    )


def choose_rules(network: Network, pets: Pets, split: str, options: Options, say: Say) -> dict[Method, ChosenRule]:
    """The box rule of each method that fits the boxes of these pictures best.

    Args:
        network: to explain.
        pets: with boxes, of the network's size; pictures that are set aside for this.
        split: its name.
        options: of the evaluation.
        say: gets a line for each method.
    """
    rules: dict[Method, ChosenRule] = {}
    for method in options.methods:
        heats = [
            heat_map(network, x, target, method, options.layer, options.occlusion)
            for x, target in _chosen(network, pets, options)
        ]
        rule, iou = choose_rule(heats, [*pets.boxes])
        origin = f"{network.name} on the {len(heats)} head boxes of {split}: {pets.protocol}"
        rules[method] = ChosenRule(rule, round(iou, 4), origin)
        say(f"{method}: {rule}, mean IoU {iou:.3f} on {len(heats)} pictures of {split}")
    return rules


def evaluate(
    network: Network,
    pets: Pets,
    split: str,
    rules: Mapping[Method, ChosenRule],
    options: Options,
    usual_box: NDArray[np.float32],
    say: Say,
) -> Evaluation:
    """Score methods on pictures with boxes and trimaps.

    Args:
        network: to explain.
        pets: with boxes and trimaps, of the network's size.
        split: its name.
        rules: of the methods' boxes, chosen on other pictures.
        options: of the evaluation.
        usual_box: (4,) the mean box of those other pictures, the baseline.
        say: gets a line for each method.
    """
    lines = [_baseline(pets, usual_box)]
    shares: tuple[float, ...] = ()
    for method in options.methods:
        line = _score(network, pets, method, rules[method], options)
        if options.spoilt_steps:
            tests = [
                randomise(network, x, target, method, options.spoilt_steps, options.layer, options.occlusion)
                for x, target in list(_chosen(network, pets, options))[: options.spoilt_pictures]
            ]
            shares = tuple(step.spoilt for step in tests[0])
            line = msgspec.structs.replace(
                line,
                rank_correlation=tuple(
                    float(np.mean([t[i].rank_correlation for t in tests])) for i in range(len(shares))
                ),
                ssim=tuple(float(np.mean([t[i].ssim for t in tests])) for i in range(len(shares))),
            )
        say(f"{method}: box IoU {line.box_iou}, pointing {line.pointing_box}")
        lines.append(line)
    return Evaluation(
        model=network.name,
        target={None: "what it predicts", "truth": "the true class"}.get(options.target, f"target {options.target}"),
        pictures=len(pets),
        split=split,
        protocol=pets.protocol,
        spoilt=shares,
        spoilt_pictures=min(options.spoilt_pictures, len(pets)),
        lines=tuple(lines),
    )


def _score(network: Network, pets: Pets, method: Method, chosen: ChosenRule, options: Options) -> MethodScores:
    rule, rows, sweeps = chosen.rule, [], []
    for number, (x, target) in enumerate(_chosen(network, pets, options)):
        heat = heat_map(network, x, target, method, options.layer, options.occlusion)
        box, mask, counted = _truth(pets, number)
        found = fit_box(heat, rule)
        sure = replace(target, scale="probability")
        rows.append(
            [
                points_into(heat, box),
                points_onto(heat, mask),
                0.0 if found is None else float(box_iou(found, box)),
                mask_iou(heat, rule.threshold, rule.smoothing, mask, counted),
                *deletion_and_insertion(network, x, sure, heat),
            ]
        )
        sweeps.append(best_box_ious(heat, box))
    table = np.array(rows, np.float64)
    means = [_mean(column) for column in table.T]
    sweep = np.stack(sweeps)
    return MethodScores(
        method=method,
        rule=chosen,
        pointing_box=means[0],
        pointing_pet=means[1],
        box_iou=means[2],
        mask_iou=means[3],
        max_box_acc_v2=Figure(max_box_acc_v2(sweep), *interval(sweep, max_box_acc_v2, 200)),
        deletion=means[4],
        insertion=means[5],
    )


def _baseline(pets: Pets, usual_box: NDArray[np.float32]) -> MethodScores:
    """The mean box of other pictures, and the picture's centre: what a method must beat to have said anything."""
    height, width = pets.photos.shape[1:3]
    y, x = np.mgrid[:height, :width]
    centre = -np.hypot(y - height / 2, x - width / 2).astype(np.float32)
    truths = [_truth(pets, number) for number in range(len(pets))]
    return MethodScores(
        method="mean box, centre",
        rule=None,
        pointing_box=_mean(np.array([points_into(centre, box) for box, _, _ in truths], np.float64)),
        pointing_pet=_mean(np.array([points_onto(centre, mask) for _, mask, _ in truths], np.float64)),
        box_iou=_mean(box_iou(pets.boxes, usual_box)),
        mask_iou=None,
        max_box_acc_v2=None,
        deletion=None,
        insertion=None,
    )


def _mean(column: NDArray[np.float64]) -> Figure:
    return Figure(float(column.mean()), *interval(column, lambda rows: float(rows.mean())))


def _truth(pets: Pets, number: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """The head's box, where the pet is, and which pixels say so."""
    assert pets.trimaps is not None
    trimap = pets.trimaps[number]
    return pets.boxes[number], trimap == 1, trimap != 3


def _chosen(network: Network, pets: Pets, options: Options) -> Iterator[tuple[torch.Tensor, Target]]:
    for number, photo in enumerate(pets.photos):
        x = to_tensor(photo)
        with torch.no_grad():
            answers = network(x)
        text = options.target
        if text == "truth":
            text = _own_class(network, pets, number)
        yield x, choose_target(network, answers, text)


def _own_class(network: Network, pets: Pets, number: int) -> str:
    names = {name for head in network.heads.values() for name in head.names}
    breed, species = BREEDS[int(pets.breeds[number])], SPECIES[int(pets.species[number])]
    return breed if breed in names or species not in names else species
