"""The models of a session: loaded on every device, and seen to be ones that go together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial

import engines
from engines.errors import ModelError, UsageError
from engines.loading import Building, Degraded, Observe
from engines.settings import nearest
from pipeline.config import Config, check
from pipeline.drawing.anonymize import check_segmenter
from pipeline.metrics import Metrics
from pipeline.process import usable_cores
from pipeline.runtime import LoadedModel
from pipeline.session.degradations import Degradations

LARGEST_BATCH, LARGEST_GPU_BATCH = 8, 32
"""Pictures that an engine computes at once at most, on a CPU and on a GPU."""


def load_models(
    config: Config,
    hint: engines.Hint,
    streams: int | None,
    metrics: Metrics,
    degradations: Degradations,
    building: Observe,
    stack: ExitStack,
    workers: int = 1,
) -> list[LoadedModel]:
    """The engines of every model of a configuration, on each of its devices.

    Args:
        config: which models.
        hint: what they are to be good at.
        streams: how many there are for each device, of each of which one picture at most is in a batch; None where it
            is not known.
        metrics: where their state is said.
        degradations: told what they go without.
        building: told how far the build of an engine is.
        stack: closes them.
        workers: processes that compute on the CPU, each on its share of the cores.

    Raises:
        ModelError: a model cannot be used, or not beside the others.
    """

    def told(model: str, what: Degraded | Building) -> None:
        if isinstance(what, Building):
            metrics.engine_state(model, "building")
            building(what)
        else:
            degradations.count(what)

    threads = None if workers == 1 else max(1, usable_cores() // workers)
    loaded: list[LoadedModel] = []
    for wanted in config.models:
        metrics.engine_state(wanted.model, "loading")
        found = []
        for device in wanted.device.split(","):
            engine = engines.load(
                wanted.model, device=device, precision=wanted.precision, backend=wanted.backend,
                max_batch=min(streams or LARGEST_BATCH, LARGEST_BATCH), threads=threads, hint=hint,
                gpu_batch=min(streams or LARGEST_GPU_BATCH, LARGEST_GPU_BATCH), observe=partial(told, wanted.model),
            )  # fmt: skip
            stack.callback(engine.close)
            found.append(engine)
        engine = found[0]
        loaded.append(LoadedModel(engine, wanted.every, tuple(found[1:])))
        if wanted.model != engine.spec.name:
            metrics.forget_engine_state(wanted.model)
        metrics.engine(engine.spec.name, engine.backend, engine.precision, loaded[-1].device, "ready")
    _check_together(loaded)
    return loaded


def _check_together(loaded: Sequence[LoadedModel]) -> None:
    segmenters = [m.name for m in loaded if "class_map" in m.engine.spec.outputs]
    if len(segmenters) > 1:
        raise ModelError(
            f"{' and '.join(segmenters)} both give a class map; "
            "a run takes one model that does and any number of localizers"
        )
    names = [m.name for m in loaded]
    for name in names:
        if names.count(name) > 1:
            raise ModelError(f"two of the models call themselves {name!r}; list each model once")


def check_classes(config: Config, models: Sequence[LoadedModel]) -> None:
    """See that what is asked of the classes is asked of classes that there are.

    Raises:
        UsageError: no model gives the class map that is to be smoothed or shared out among boxes, or a class to be
            hidden is none of theirs.
    """
    specs = [model.engine.spec for model in models]
    asked = {"`smoothing` (--smooth)": config.smoothing is not None, "`instances` (--instances)": config.instances}
    if not any("class_map" in spec.outputs for spec in specs) and any(asked.values()):
        raise UsageError(
            f"{next(name for name in asked if asked[name])} is of a segmenter's class map, and none of "
            f"{_listed(s.name for s in specs)} gives one; leave it out, or add a segmenter"
        )
    names = [info.name for spec in specs for info in spec.classes]
    if unknown := [name for name in config.overlay.hide if name not in names]:
        close = nearest(unknown[0], names)
        hint = f"the nearest is {close!r}" if close else f"there are {_listed(dict.fromkeys(names))}"
        raise UsageError(f"`overlay.hide` (--hide): no model knows a class {unknown[0]!r}; {hint}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def check_anonymity(config: Config, models: Sequence[LoadedModel]) -> None:
    """See, before anything is opened for writing, that what is to be blurred will be.

    Raises:
        UsageError: no model finds what is to be blurred.
    """
    if config.anonymize is None:
        return
    check(config, "the configuration")  # whoever made it in Python may not have
    model = next((m for m in models if "class_map" in m.engine.spec.outputs), None)
    if model is None:
        check_segmenter(config.anonymize, "", (), 1)
    else:
        check_segmenter(config.anonymize, model.name, model.engine.spec.classes, model.every)


def device_names(devices: Sequence[str]) -> list[str]:
    """As they are asked for, numbered where one is given twice.

    >>> device_names(["cuda:0", "cuda:1", "cuda:0"])
    ['cuda:0', 'cuda:1', 'cuda:0#2']
    """
    names = list[str]()
    for device in devices:
        earlier = sum(name.split("#")[0] == device for name in names)
        names.append(f"{device}#{earlier + 1}" if earlier else device)
    return names
