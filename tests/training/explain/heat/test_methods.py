"""Heat maps against known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion

from engines.errors import UsageError
from tests.training.explain.tiny import HEIGHT, PATCH, WIDTH, Linear, OnePatch, chain, classifier, lit_patch, picture
from training.explain.heat.incremental import incremental
from training.explain.heat.layers import choose_layer
from training.explain.heat.methods import METHODS, Method, Scored, heat_map
from training.explain.heat.occlusion import Occlusion, occlusion_map, places
from training.explain.networks.network import Network
from training.explain.targets import Target, choose_target

FIRST = Target("class", 0, "a", "logit", "class")


def test_the_saliency_of_a_linear_model_is_its_weights() -> None:
    weights = torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    network = classifier(Linear(weights), 2)
    wanted = weights[0].abs().amax(0).numpy() / 127.5  # per grey level
    for method in ("gradient", "smoothgrad"):
        assert heat_map(network, picture(), FIRST, method) == pytest.approx(wanted, rel=1e-4)


def test_the_softmax_fades_the_gradient_and_mixes_the_classes() -> None:
    weights = torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) / 100
    network = classifier(Linear(weights), 2)
    x = picture()
    with torch.no_grad():
        p = float(network(x)["class"].softmax(1)[0, 0])
    heat = heat_map(network, x, replace(FIRST, scale="probability"), "gradient")
    wanted = p * (1 - p) * (weights[0] - weights[1]).abs().amax(0).numpy() / 127.5  # of the softmax's derivative
    assert heat == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_points_where_the_network_looks(method: Method) -> None:
    network = classifier(OnePatch(), 2)
    heat = heat_map(network, lit_patch(), FIRST, method, layer="look", occlusion=Occlusion(8, 4))
    top, left, bottom, right = PATCH
    y, across = np.unravel_index(int(heat.argmax()), heat.shape)
    assert top <= y < bottom
    assert left <= across < right
    inside = np.zeros(heat.shape, bool)
    # Occlusion is as blurred as its square is wide; the rest sees the patch alone (Grad-CAM weighs whole channels).
    margin = 8 if method == "occlusion" else 0
    inside[top - margin : bottom + margin, left - margin : right + margin] = True
    if method != "gradcam":
        assert np.abs(heat[~inside]).max() == pytest.approx(0, abs=1e-6)


@pytest.mark.seconds
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize(("window", "stride"), [(13, 7), (9, 9), (64, 5), (1, 1)])
def test_occlusion_is_what_captum_finds_one_place_at_a_time(window: int, stride: int, gate: bool) -> None:
    network, size = classifier(chain(gate=gate)), (64, 96)
    if window == 1:
        network, size = classifier(chain(gate=gate), size=(16, 16)), (16, 16)
    x = picture(size=size)
    loop = CaptumOcclusion(Scored(network, FIRST)).attribute(
        x, sliding_window_shapes=(3, window, window), strides=(3, stride, stride), baselines=127.5
    )
    wanted = loop[0, 0].numpy()
    for exact_parts in (True, False):
        found = occlusion_map(network, x, FIRST, Occlusion(window, stride, batch=7, exact_parts=exact_parts))
        assert found == pytest.approx(wanted, abs=1e-5 * float(np.abs(wanted).max()) + 1e-7)


def test_only_what_keeps_to_its_neighbourhood_is_cropped() -> None:
    def stages(network: Network) -> list[tuple[int, int, int]]:
        prepared = incremental(network, picture())
        return [] if prepared is None else [(stage.stride, stage.before, stage.after) for stage in prepared.stages]

    with torch.inference_mode():
        # A strided 3×3, whose change reaches the cell behind it; 3×3, 5×5, pooling, the block, a strided 3×3.
        begin = [(2, 0, 1), (1, 1, 1)]
        assert stages(classifier(chain())) == [*begin, (1, 2, 2), (2, 0, 0), (1, 1, 1), (2, 0, 1)]
        assert stages(classifier(chain(gate=True))) == begin
        assert stages(classifier(Linear(torch.ones(2, 3, HEIGHT, WIDTH)), 2)) == []


def test_places_reach_to_the_end() -> None:
    assert places(224, 25, 5) == list(range(0, 201, 5))
    assert places(10, 4, 4) == [0, 4, 8]
    assert places(10, 10, 3) == [0]


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [(Occlusion(65, 5), "does not fit into 96×64"), (Occlusion(8, 9), "leaves out what lies between windows of 8")],
)
def test_grids_that_do_not_fit_are_refused(grid: Occlusion, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        occlusion_map(classifier(chain()), picture(), FIRST, grid)


def test_smoothgrad_is_the_same_every_time() -> None:
    network = classifier(chain())
    torch.manual_seed(5)
    first = heat_map(network, picture(), FIRST, "smoothgrad", samples=4)
    torch.manual_seed(6)
    state = torch.get_rng_state()
    assert (heat_map(network, picture(), FIRST, "smoothgrad", samples=4) == first).all()
    assert (torch.get_rng_state() == state).all()


def test_grad_cam_looks_at_the_last_map_of_the_coarsest_grid() -> None:
    network = classifier(chain())
    chosen = choose_layer(network, FIRST)
    assert (chosen.name, chosen.shape) == ("8", (16, 8, 12))
    assert choose_layer(network, FIRST, "3.conv").shape == (8, 32, 48)
    with pytest.raises(UsageError, match=r"no layer 3.cnov that gives a map on the way to a; the nearest is 3.conv"):
        choose_layer(network, FIRST, "3.cnov")
    with pytest.raises(UsageError, match="has no convolutional map, which Grad-CAM needs"):
        choose_layer(classifier(Linear(torch.ones(2, 3, HEIGHT, WIDTH)), 2), FIRST)


def test_the_default_target_is_what_is_predicted() -> None:
    network = classifier(chain())
    with torch.no_grad():
        answers = network(picture())
    assert choose_target(network, answers).index == int(answers["class"].argmax())
