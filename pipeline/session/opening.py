"""How a stream is opened: its source, its decoder, and the plan with its own stages and outputs."""

from __future__ import annotations

import logging
import math
import time
import weakref
from functools import partial

import msgspec

from engines.cuda.probe import has_driver, without_kernels
from engines.errors import RoadlensError, SourceError
from engines.loading import Degraded
from pipeline.addresses import strip_credentials
from pipeline.analysis import own_car
from pipeline.analysis.ahead import stage as ahead
from pipeline.analysis.carrying.cadence import LONGEST
from pipeline.analysis.ignore import IgnoredRegions
from pipeline.analysis.smoothing import SETTLED
from pipeline.capabilities import attach_source
from pipeline.config import StreamConfig, configured_stages
from pipeline.contracts import Sink, Source, Stage, StreamInfo
from pipeline.drawing import legend
from pipeline.drawing.anonymize import AnonymizeStage
from pipeline.drawing.overlay import OverlayStage
from pipeline.outputs.encoder import NVENC
from pipeline.outputs.event_clip import EventRing
from pipeline.outputs.live.browser import BrowserView
from pipeline.outputs.live.opening import open_outputs
from pipeline.outputs.live.output import LiveOutput
from pipeline.outputs.mp4 import VideoWriter
from pipeline.runtime import StreamPlan
from pipeline.runtime.placement import Berth
from pipeline.session.files import JsonLinesFile
from pipeline.session.shared import Shared
from pipeline.session.sidecar import SideCar
from pipeline.session.starts import Start
from pipeline.session.stream import RunningStream
from pipeline.sources.decoding import Decoding
from pipeline.sources.live.address import LiveOptions
from pipeline.sources.recording.glances import glances
from pipeline.sources.resolve import resolve_source
from pipeline.state import SourceState, StateChange

log = logging.getLogger(__name__)


# The source -----------------------------------------------------------------------------------------------------------
def resolved(
    shared: Shared, name: str, config: StreamConfig, live: LiveOptions, given: Source | None = None
) -> tuple[RunningStream, Source]:
    """A stream that has a source and a place, not open yet.

    Args:
        shared: what the session's streams share.
        name: the stream's id.
        config: what it is asked to be.
        live: how a live source is read.
        given: its source; that of the configuration's address when left out.

    Raises:
        RoadlensError: the address stands for nothing, the given source is none, or the run writes what it reads.
    """
    berth = shared.placer.place()
    stream = RunningStream(name, config, None, StateChange(name, SourceState.CONNECTING, at=time.time()), berth)
    stream.resources.callback(berth.leave)
    try:
        source = given if given is not None else _of_address(shared, stream, live, berth)
        stream.attached = attach_source(source)
        stream.source = source
        shared.files.read(name, config.source, stream.attached.paths)
    except BaseException:
        stream.resources.close()
        raise
    if shared.config.event_clips is not None and stream.attached.tap is not None:
        left_out = partial(_left_out_of_clip, shared, weakref.ref(stream), name)
        stream.ring = EventRing(name, shared.config.event_clips, shared.states.tell_of_output, left_out)
        stream.resources.callback(stream.ring.close)
        stream.attached.tap(stream.ring.packet)
    return stream, source


def _left_out_of_clip(shared: Shared, held: weakref.ref[RunningStream], name: str, count: int, reason: str) -> None:
    if not _gone(held):
        shared.metrics.output_dropped(name, "events", reason, count)


def _of_address(shared: Shared, stream: RunningStream, live: LiveOptions, berth: Berth) -> Source:
    config = stream.config
    told = partial(shared.states.tell_of_source, weakref.ref(stream))
    try:
        return resolve_source(
            config.source, stream.id, config.decode_threads, config.picture_rate(),
            live=live, realtime=config.realtime, observe=told, decoding=_decoding(shared, stream.id, config, berth),
            mode=config.mode, camera=config.camera, track=config.track,
        )  # fmt: skip
    except RoadlensError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL in it, a home of nobody's
        shown = strip_credentials(config.source)[:64]
        raise SourceError(f"{shown!r} cannot be looked for: {error}; give a file or an address") from None


def _decoding(shared: Shared, name: str, config: StreamConfig, berth: Berth) -> Decoding:
    # Where the models are that look at the pictures; of those on a GPU of their own the first.
    devices = [model.device.split(",") for model in shared.config.models]
    own = [each[berth.first] if len(each) > 1 else each[0] for each in devices]
    on_cpu = config.decode == "auto" and all(device == "cpu" for device in own)
    numbered = (device.partition(":")[2] for device in own)
    gpu = next((int(number) for number in numbered if number), 0)
    degraded = shared.degradations.say
    decoding = Decoding(name, "cpu" if on_cpu else config.decode, gpu, degraded=degraded)
    if decoding.decoder == "cuda" and (missing := without_kernels(gpu)) is not None:
        sentence = f"{name}: {missing[1]}; PyTorch's own operations do the kernels' work, and take longer."
        degraded(Degraded(name, "triton", "torch", missing[0], sentence))
    return decoding


# The plan -------------------------------------------------------------------------------------------------------------
def plan(shared: Shared, stream: RunningStream, source: Source, start: Start, side_car: SideCar | None) -> StreamPlan:
    """A stream with its own stages and outputs, which are opened.

    Args:
        shared: what the session's streams share.
        stream: the stream; its source is open.
        source: its source.
        start: where it begins.
        side_car: what keeps the side-cars of its files; None where nothing of them is kept.

    Raises:
        OutputError: an output cannot be opened.
    """
    info = stream.info
    if info is None:
        raise RuntimeError(f"the source of stream {stream.id!r} is not open")
    _say_short_bound(stream, info, source)
    if stream.berth is not None:
        shared.placer.pace(stream.berth, float(info.rate))
    stages = _stages(shared, stream, info)
    outputs = _file_sinks(shared, stream, info, start, side_car)
    outputs += _live_outputs(shared, stream, info, source)
    _settle_encoders(shared, stream, [sink for sink in outputs if isinstance(sink, VideoWriter | LiveOutput)])
    if stream.ring is not None and source.mode == "file":
        log.warning("%s: it is a recording: no clips of events are cut from it", stream.id)
        stream.ring = None
    if stream.ring is not None and stream.ring.options.save_when is not None:
        outputs.append(stream.ring)
    stopped = (lambda _frames: None) if side_car is None else side_car.stopped
    warm_up = _warm_up(shared, stream, info, source)
    return StreamPlan(
        source, info, stages, [*shared.sinks, *outputs], start.frame, warm_up, start.track, stopped, stream.berth,
        _learnt(stream, regions(stream, info)), stream.config.ignore.own_car,
    )  # fmt: skip


def regions(stream: RunningStream, info: StreamInfo) -> IgnoredRegions | None:
    """What of its pictures is not looked at; pictures of a folder need not have the same bars.

    Raises:
        UsageError: a part that is said to be ignored is none of the picture.
    """
    options = stream.config.ignore
    if not info.moving:
        options = msgspec.structs.replace(options, bars=False)
    if not options.bars and not options.polygons and options.mask is None:
        return None
    return IgnoredRegions(options, info.width, info.height)


def _learnt(stream: RunningStream, ignored: IgnoredRegions | None) -> IgnoredRegions | None:
    """The same, with the bars that its pictures have."""
    if ignored is not None:
        ignored.learn(glances(stream.attached.paths))
    return ignored


def _say_short_bound(stream: RunningStream, info: StreamInfo, source: Source) -> None:
    bound = stream.config.live.latency_bound
    if source.mode == "live" and bound < min(float(1 / info.rate), LiveOptions().latency_bound):
        log.warning(
            "%s: a latency bound of %g ms is less than one frame of it (%g ms), so that most will be too old; "
            "raise live.latency_bound", stream.id, bound * 1000, 1000 / info.rate,
        )  # fmt: skip


def _stages(shared: Shared, stream: RunningStream, info: StreamInfo) -> list[Stage]:
    config, view = shared.config, shared.view
    stages = [*configured_stages(config), *shared.stages]
    if config.anonymize is not None:
        specs = [m.engine.spec for m in shared.models]
        outlined = next((s.name for s in specs if "class_map" in s.outputs and "boxes" not in s.outputs), "")
        options = config.anonymize if info.moving else config.anonymize.of_stills()
        ahead = options.frames_ahead(info)
        stages.insert(0, AnonymizeStage(options, outlined, ahead))  # before anybody can look
    written = config.video.path is not None or config.outputs.any
    if written or view is not None:
        archived = config.video.path is not None or config.outputs.record is not None
        overlay = OverlayStage(config.overlay, float(1 / info.rate), archived=archived)
        overlay.target.degraded = shared.degradations.say
        if view is not None and not written:
            overlay.wanted = lambda: view.viewers(stream.id) > 0
        stream.overlay = overlay
        stages.append(overlay)
    return stages


def _file_sinks(
    shared: Shared, stream: RunningStream, info: StreamInfo, start: Start, side_car: SideCar | None
) -> list[Sink]:
    sinks: list[VideoWriter | JsonLinesFile] = []
    if side_car is not None:
        stream.resources.callback(side_car.close)  # the last to be closed
    for path in shared.files.outputs[stream.id]:
        if path.suffix.lower() == ".jsonl":
            file = JsonLinesFile(path, stream.id, start.frame, instances=shared.config.instances)
            stream.resources.callback(file.close)
            sinks.append(file)
        else:
            writer = VideoWriter(path, info, shared.config.video, start.video)
            stream.resources.callback(writer.close)
            sinks.append(writer)
            shared.encoders[stream.id] = writer.encoder
            shared.metrics.encoder(stream.id, writer.encoder)
    if side_car is None:
        return [*sinks]
    side_car.begin(sinks)
    return [*sinks, side_car]


def _live_outputs(shared: Shared, stream: RunningStream, info: StreamInfo, source: Source) -> list[Sink]:
    browsers = BrowserView(stream.id) if shared.view is not None else None
    stream.output = open_outputs(
        stream.id, info, source.mode, shared.config.outputs, shared.metrics, [shared.states.tell_of_output], browsers,
        partial(_gone, weakref.ref(stream)),
    )  # fmt: skip
    if stream.output is None:
        return []
    stream.browsers = browsers
    stream.resources.callback(stream.output.close)
    return [stream.output]


def _settle_encoders(shared: Shared, stream: RunningStream, encoders: list[VideoWriter | LiveOutput]) -> None:
    """Say what the encoders go without, and in which memory they want the pictures."""
    degraded = shared.degradations.say
    for encoder in encoders:
        encoder.observe(degraded)
        options = shared.config.outputs.encoder if isinstance(encoder, LiveOutput) else shared.config.video
        if options.encoder == "auto" and encoder.encoder != NVENC and has_driver():
            sentence = f"{stream.id}: this GPU opens no NVENC encoder; {encoder.encoder} is used."
            degraded(Degraded(stream.id, "nvenc", encoder.encoder, "nvenc", sentence))
    if stream.overlay is not None and encoders:
        # One download serves several encoders in host memory: pictures stay where all of them read the GPU's.
        stream.overlay.target.stay = lambda: all(encoder.takes_device for encoder in encoders)


def _warm_up(shared: Shared, stream: RunningStream, info: StreamInfo, source: Source) -> int:
    """Frames that a resumed run looks at again, so that it shows what it would have shown uninterrupted."""
    if source.mode != "file":
        return 0
    config = shared.config
    keeps = info.moving and stream.config.ignore.own_car
    remembered = [math.ceil(own_car.SETTLED * info.rate)] if keeps else []
    remembered += [LONGEST if model.every == "auto" else model.every - 1 for model in shared.models]
    if config.smoothing is not None:
        remembered.append(math.ceil(SETTLED * info.rate))
    if config.overlay.legend and (config.video.path is not None or config.outputs.any):
        remembered.append(math.ceil(legend.SETTLED * info.rate))
    if config.ahead is not None:
        remembered.append(math.ceil(ahead.SETTLED * info.rate))
    if config.anonymize is not None:
        remembered.append(config.anonymize.warm_up(info))
    return max(remembered, default=0)


def _gone(held: weakref.ref[RunningStream]) -> bool:
    stream = held()
    return stream is None or stream.removed
