"""NV12 pictures: what the kernels and the plain operations make of them, against float64 arithmetic written anew.

The kernels run in Triton's interpreter here, on a CPU; the tests marked `gpu` run the compiled ones.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from engines.cuda import nv12
from engines.cuda.nv12 import Ink, Nv12, Palette
from tests.engines.cuda.planes import uploaded

Float = NDArray[np.float64]
PRIMARIES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
COLOURS = [(matrix, full) for matrix in PRIMARIES for full in (False, True)]
HOST = torch.device("cpu")


@pytest.fixture(scope="module", params=["plain", "kernels"])
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each of the two ways that the functions have on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1" if request.param == "kernels" else "0")
        if request.param == "kernels":
            pytest.importorskip("triton", reason="Triton is not installed")
            patch.delitem(sys.modules, "engines.cuda.kernels", raising=False)  # decorated as the variable says
        assert nv12.uses_kernels(HOST) == (request.param == "kernels")
        yield request.param
    sys.modules.pop("engines.cuda.kernels", None)


def noise(height: int, width: int, colours: tuple[str, bool] = ("bt709", False), seed: int = 0, pad: int = 0) -> Nv12:
    """A picture with every level in it, rows `pad` bytes apart."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, 256, (height, width + pad), np.uint8)
    pairs = random.integers(0, 256, ((height + 1) // 2, (width + 1) // 2 + pad, 2), np.uint8)
    return Nv12(torch.from_numpy(rows)[:, :width], torch.from_numpy(pairs)[:, : (width + 1) // 2], *colours)


# References ---------------------------------------------------------------------------------------------------------
def axis(own: int, count: int, area: bool) -> Float:
    """(count, own) weights of one axis, a pixel at a time."""
    weights, scale = np.zeros((count, own)), own / count
    for place in range(count):
        if area and own > count:
            begin, end = place * scale, (place + 1) * scale
            for index in range(own):
                weights[place, index] = max(0.0, min(index + 1, end) - max(index, begin))
        else:
            centre, support = (place + 0.5) * scale - 0.5, max(scale, 1.0)
            for index in range(int(np.floor(centre - support)), int(np.ceil(centre + support)) + 1):
                weights[place, min(max(index, 0), own - 1)] += max(0.0, 1 - abs(index - centre) / support)
        weights[place] /= weights[place].sum()
    return weights


def expected_input(picture: Nv12, height: int, width: int) -> Float:
    luma, chroma = picture.luma.numpy().astype(float), picture.chroma.numpy().astype(float)
    area = luma.shape[1] >= 2 * width or luma.shape[0] >= 2 * height

    def resampled(plane: Float) -> Float:
        return axis(plane.shape[0], height, area) @ plane @ axis(plane.shape[1], width, area).T

    y, cb, cr = resampled(luma), resampled(chroma[..., 0]), resampled(chroma[..., 1])
    if picture.full_range:
        y, cb, cr = y / 255, (cb - 128) / 255, (cr - 128) / 255
    else:
        y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    kr, kb = PRIMARIES[picture.matrix]
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(255 * np.stack([red, green, blue], -1), 0, 255)


def enlarged(small: Float, height: int, width: int) -> Float:
    """Bilinear with pixel centres aligned and edges repeated."""
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * small.shape[0] / height - 0.5, 0), small.shape[0] - 1)
            u = min(max((x + 0.5) * small.shape[1] / width - 0.5, 0), small.shape[1] - 1)
            top, left = int(v), int(u)
            below, right = min(top + 1, small.shape[0] - 1), min(left + 1, small.shape[1] - 1)
            upper = small[top, left] * (1 - u + left) + small[top, right] * (u - left)
            lower = small[below, left] * (1 - u + left) + small[below, right] * (u - left)
            result[y, x] = upper * (1 - v + top) + lower * (v - top)
    return result


def expected_blend(
    plane: Float, ids: NDArray[np.uint8], levels: Float, shown: NDArray[np.uint8], opacity: float
) -> Float:
    height, width = plane.shape
    mixed = (1 - opacity) * plane + opacity * enlarged(levels[ids], height, width)
    rows = [y * ids.shape[0] // height for y in range(height)]
    columns = [x * ids.shape[1] // width for x in range(width)]
    return np.where(shown[ids[np.ix_(rows, columns)]] != 0, mixed, plane)


# Model inputs -------------------------------------------------------------------------------------------------------
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
targets = st.tuples(st.integers(3, 24), st.integers(3, 24))
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.seconds
@FEW
@given(size=sizes, target=targets, colours=st.sampled_from(COLOURS), seed=st.integers(0, 99), pad=st.integers(0, 5))
def test_model_inputs_against_float64(path, size, target, colours, seed, pad):
    picture = noise(*size, colours, seed, pad)
    result = nv12.network_inputs([picture], *target)
    assert result.shape == (1, *target, 3)
    assert result.dtype == torch.uint8
    assert np.abs(result[0].numpy() - expected_input(picture, *target)).max() <= 1


@pytest.mark.seconds
@pytest.mark.parametrize("colours", COLOURS)
def test_known_colours(path, colours):
    """White, black, the primaries and a mixture as the recommendations' equations give them."""
    kr, kb = PRIMARIES[colours[0]]
    wanted = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (20, 130, 200)]
    pictures = []
    for rgb in wanted:
        r, g, b = (level / 255 for level in rgb)
        y = kr * r + (1 - kr - kb) * g + kb * b
        cb, cr = (b - y) / 2 / (1 - kb), (r - y) / 2 / (1 - kr)
        level, chroma = ((0, 255), 255) if colours[1] else ((16, 219), 224)
        luma = torch.full((7, 5), round(level[0] + level[1] * y), dtype=torch.uint8)
        pair = torch.tensor([min(round(128 + chroma * c), 255) for c in (cb, cr)], dtype=torch.uint8)
        pictures.append(Nv12(luma, pair.expand(4, 3, 2).contiguous(), *colours))
    results = nv12.network_inputs(pictures, 4, 5)
    for rgb, result in zip(wanted, results, strict=True):
        assert (result.int() - torch.tensor(rgb)).abs().max() <= 2  # a level of YCbCr is up to two of RGB


def test_a_batch_of_different_pictures_is_each_of_them_alone(path):
    pictures = [noise(40, 30, COLOURS[0]), noise(9, 61, COLOURS[3], 1, 3), noise(1, 1, COLOURS[1], 2), noise(16, 12)]
    together = nv12.network_inputs(pictures, 12, 16)
    assert together.shape == (4, 12, 16, 3)
    for picture, own in zip(pictures, together, strict=True):
        assert torch.equal(nv12.network_inputs([picture], 12, 16)[0], own)


def test_a_model_of_the_pictures_own_size_sees_its_pixels(path):
    luma = torch.arange(48, dtype=torch.uint8).view(6, 8) + 16
    grey = Nv12(luma, torch.full((3, 4, 2), 128, dtype=torch.uint8), "bt709", True)
    assert torch.equal(nv12.network_inputs([grey], 6, 8)[0], luma[..., None].expand(-1, -1, 3))


# Overlays -----------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
@FEW
@given(
    size=sizes,
    map_size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    opacity=st.sampled_from([0.0, 0.3, 0.45, 1.0]),
    seed=st.integers(0, 99),
    pad=st.integers(0, 3),
)
def test_blending_against_float64(path, size, map_size, opacity, seed, pad):
    random = np.random.default_rng(seed)
    picture = noise(*size, seed=seed, pad=pad)
    before = picture.luma.clone(), picture.chroma.clone()
    ids = random.integers(0, 256, map_size, np.uint8)  # ids above 127 too
    levels, shown = random.integers(0, 256, (3, 256), np.uint8), random.choice([0, 255, 255], 256).astype(np.uint8)
    result = nv12.blended(picture, ids, Palette.of(levels, shown, HOST), opacity)
    drawn = [result.luma, result.chroma[..., 0], result.chroma[..., 1]]
    planes = [before[0], before[1][..., 0], before[1][..., 1]]
    for channel, (own, plane) in enumerate(zip(drawn, planes, strict=True)):
        wanted = expected_blend(plane.numpy().astype(float), ids, levels[channel].astype(float), shown, opacity)
        assert np.abs(own.numpy() - wanted).max() <= 1
    assert torch.equal(picture.luma, before[0])
    assert torch.equal(picture.chroma, before[1])


def ink_of(light: Float, cover: Float, chroma_light: Float, chroma_cover: Float) -> Ink:
    """All of a picture as tiles, cut by hand."""
    height, width = light.shape
    down, across = -(-height // nv12.TILE), -(-width // nv12.TILE)
    tiles = []
    for place in range(down * across):
        parts = []
        for plane, side in ((light, 32), (cover, 32), (chroma_light, 16), (chroma_cover, 16)):
            y, x = place // across * side, place % across * side
            piece = plane[y : y + side, x : x + side]
            room = np.zeros((side, side, *plane.shape[2:]), np.uint8)
            room[: piece.shape[0], : piece.shape[1]] = piece
            parts.append(room.reshape(-1))
        tiles.append(np.concatenate(parts))
    return Ink(np.arange(down * across, dtype=np.int32), np.stack(tiles))


@pytest.mark.seconds
@FEW
@given(size=st.tuples(st.integers(1, 70), st.integers(1, 70)), seed=st.integers(0, 99))
def test_ink_against_float64(path, size, seed):
    random, half = np.random.default_rng(seed), ((size[0] + 1) // 2, (size[1] + 1) // 2)
    picture = noise(*size, seed=seed)
    own = nv12.copied(picture)
    cover, half_cover = random.integers(0, 256, size), random.integers(0, 256, half)
    light = np.floor(random.uniform(0, 1, size) * cover)  # light is colour times cover, never more than cover
    half_light = np.floor(random.uniform(0, 1, (*half, 2)) * half_cover[..., None])
    nv12.compose(own, ink_of(light, cover, half_light, half_cover))
    wanted = picture.luma.numpy() * (1 - cover / 255) + light
    half_wanted = picture.chroma.numpy() * (1 - half_cover[..., None] / 255) + half_light
    assert np.abs(own.luma.numpy() - wanted).max() <= 1
    assert np.abs(own.chroma.numpy() - half_wanted).max() <= 1


def test_ink_touches_its_tiles_only(path):
    picture = noise(70, 100)
    own = nv12.copied(picture)
    tile = np.full((1, nv12.TILE_BYTES), 255, np.uint8)
    nv12.compose(own, Ink(np.array([5], np.int32), tile))  # second row, second column of four
    differs = own.luma != picture.luma
    assert differs[32:64, 32:64].any()
    differs[32:64, 32:64] = False
    assert not differs.any()
    chroma = (own.chroma != picture.chroma).any(-1)
    chroma[16:32, 16:32] = False
    assert not chroma.any()


def test_no_ink_is_no_change(path):
    own = noise(8, 8)
    before = own.luma.clone()
    nv12.compose(own, Ink(np.empty(0, np.int32), np.empty((0, nv12.TILE_BYTES), np.uint8)))
    assert torch.equal(own.luma, before)


# Memory -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 1)])
def test_up_and_down_again(size):
    picture = noise(*size, pad=3)
    height, half = size[0], (size[0] + 1) // 2
    up = uploaded(picture.luma.numpy(), picture.chroma.numpy(), "bt601", True, "cpu")
    assert (up.matrix, up.full_range) == ("bt601", True)
    for each in (up, picture):
        down = nv12.downloaded(each)
        assert down.shape == (height + half, 2 * ((size[1] + 1) // 2))
        assert np.array_equal(down[:height, : size[1]], picture.luma.numpy())
        assert np.array_equal(down[height:].reshape(picture.chroma.shape), picture.chroma.numpy())


def test_borrowed_planes_are_not_copied():
    luma, chroma = np.zeros((4, 6), np.uint8), np.zeros((2, 3, 2), np.uint8)
    picture = Nv12.borrow(luma, chroma, "bt709", False)
    luma[2, 3] = 77
    assert picture.luma[2, 3] == 77


# On a GPU -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU that this torch can use")
    return torch.device("cuda", 0)


def on(picture: Nv12, device: torch.device) -> Nv12:
    return uploaded(picture.luma.numpy(), picture.chroma.numpy(), picture.matrix, picture.full_range, device)


def test_kernels_that_do_not_compile_are_found_by_running_one(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")

    def by_kernel(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.\n")

    kernels = ("_inputs_by_kernel", "_blend_by_kernel", "_compose_by_kernel")
    for broken in kernels:
        for name in kernels:
            monkeypatch.setattr(nv12, name, by_kernel if name == broken else lambda *_: None)
        assert nv12._fault(HOST) == "Triton compiles no kernels here (Please specify via CC environment variable)"
    monkeypatch.setattr(nv12, broken, lambda *_: None)
    assert nv12._fault(HOST) is None
    monkeypatch.setattr(nv12.importlib.util, "find_spec", lambda _name: None)
    assert nv12._fault(HOST) == "Triton is not installed"


def test_all_kernels_run_once_before_the_first_frame(path):
    """What is run to find out is what frames need: each of the three, as it is there."""
    if path == "plain":
        pytest.skip("without Triton there is nothing to compile")
    assert nv12._fault(HOST) is None


def test_threads_that_ask_together_compile_once(monkeypatch):
    asked, together = list[torch.device](), threading.Barrier(4)

    def fault(device: torch.device) -> str:
        asked.append(device)
        return "none here"

    monkeypatch.setattr(nv12, "_fault", fault)
    monkeypatch.setattr(nv12, "_faults", {})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: (together.wait(30), nv12.kernel_fault(HOST))[1], range(4)))
    assert (found, asked) == (["none here"] * 4, [HOST])


@pytest.fixture
def compiled(monkeypatch):
    """The kernels as they are compiled, and not interpreted."""
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    import engines.cuda as package

    name = "engines.cuda.kernels"
    before = sys.modules.pop(name, None), vars(package).pop("kernels", None)
    yield importlib.import_module(name)
    del sys.modules[name], package.kernels
    if before[0] is not None:
        sys.modules[name] = before[0]
    if before[1] is not None:
        package.kernels = before[1]


def test_a_kernel_is_compiled_once_for_pictures_of_every_size(compiled):
    """An argument that Triton looks at (is it 1? a multiple of 16?) would have it compile again while frames come."""
    for kernel in (compiled.network_input, compiled.blend, compiled.compose):
        looked_at = [each.name for each in kernel.params if not (each.is_constexpr or each.do_not_specialize)]
        assert looked_at == [], kernel


@pytest.mark.slow
def test_triton_compiles_every_kernel_without_a_gpu(compiled):
    """By Triton's own compiler, for Hopper. They are not run."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = dict.fromkeys(("output", "class_map", "palette", "tiles"), "*u8") | {"table": "*i64", "places": "*i32"}
    constants = {"fields": compiled.FIELDS, "fraction_bits": compiled.FRACTION_BITS, "block": 256, "tile": nv12.TILE}
    for kernel in (compiled.network_input, compiled.blend, compiled.compose):
        signature, constexprs = {}, {}
        for each in kernel.params:
            if each.is_constexpr:
                signature[each.name], constexprs[each.name] = "constexpr", constants[each.name]
            elif each.name in pointers:
                signature[each.name] = pointers[each.name]
            else:
                signature[each.name] = "i64" if "address" in each.name else "fp32" if each.name == "opacity" else "i32"
        made = triton.compile(ASTSource(kernel, signature, constexprs), target=GPUTarget("cuda", 90, 32))
        assert ".target sm_90" in made.asm["ptx"]
        assert len(made.asm["cubin"]) > 1000


@pytest.mark.gpu
@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize(("size", "target"), [((270, 480), (64, 64)), ((37, 53), (16, 40)), ((45, 31), (40, 64))])
def test_compiled_kernels_make_the_same_inputs(gpu, size, target, colours):
    assert nv12.kernel_fault(gpu) is None
    pictures = [noise(*size, colours, seed) for seed in range(3)]
    results = nv12.network_inputs([on(p, gpu) for p in pictures], *target).cpu().numpy()
    for picture, result in zip(pictures, results, strict=True):
        assert np.abs(result - expected_input(picture, *target)).max() <= 1


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(270, 480), (37, 53), (1, 1)])
def test_compiled_kernels_draw_the_same_overlay(gpu, size, monkeypatch):
    random = np.random.default_rng(1)
    picture, ids = noise(*size), random.integers(0, 256, (64, 64), np.uint8)
    levels, shown = random.integers(0, 256, (3, 256), np.uint8), random.choice([0, 255], 256).astype(np.uint8)
    tile = random.integers(0, 120, (1, nv12.TILE_BYTES), np.uint8)
    drawn = []
    for each in (on(picture, gpu), picture):
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        own = nv12.blended(each, ids, Palette.of(levels, shown, each.luma.device), 0.45)
        nv12.compose(own, Ink(np.zeros(1, np.int32), tile))
        drawn.append(nv12.downloaded(own).astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 1


@pytest.mark.gpu
def test_pictures_stay_on_the_gpu_until_they_are_downloaded(gpu):
    """No copy between the memories but the palette, the class map and the table of addresses: by torch's profiler."""
    pictures = [on(noise(270, 480, seed=seed), gpu) for seed in range(4)]
    palette = Palette.of(np.zeros((3, 256), np.uint8), np.full(256, 255, np.uint8), gpu)
    ids = torch.zeros((64, 64), dtype=torch.uint8, device=gpu)

    def work() -> None:
        nv12.network_inputs(pictures, 64, 64)
        for picture in pictures:
            nv12.blended(picture, ids, palette, 0.45)

    work()  # compiled
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    copies = [event.name for event in profile.events() if "Memcpy" in event.name]
    assert len(copies) <= 1, copies
