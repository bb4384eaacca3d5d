"""What a source, a stage and a sink are: the page to read before writing one.

    source ─► decode ─► engines ─► fuse ─► stages ─► sinks
    Source yields `Frame`               Stage: `Analysis` in, `Analysis` out     Sink takes `Analysis`

A source, a stage or a sink is a plain class. It derives from nothing and is registered nowhere, and it knows nothing of
threads or queues: the runtime calls it. What each must have stands in `Source`, `Stage` and `Sink`:

>>> class NearOnly:  # a stage
...     def process(self, analysis):
...         half = analysis.frame.image.height / 2
...         analysis.boxes = tuple(box for box in analysis.boxes if box.y2 > half)
...         return analysis
>>> class Alarm:  # a sink
...     def consume(self, analysis):
...         if analysis.area.get("road", 0) < 0.05:
...             print(f"{analysis.frame.stream}: little road at {analysis.frame.time:.1f} s")

What each may have beside it, its *capabilities*, stands in the other protocols of this page:

    part    capability        method                          called
    source  WaitingSource     stop(), pause(), resume()       when the stream is to end, rest, go on; from any thread
    source  FileSource        paths = …                       files it reads: no output may be one of them
    source  TappedSource      on_packet = …                   set before `open`
    stage   RememberingStage  remember(analysis)              in place of `process`, just before a resumed run goes on
    stage   ForeseeingStage   foresee(analysis), ahead = …    so many frames before `process`, of files
    sink    AudioSink         consume_audio(item)             before the frame that the sound goes with
    sink    DataSink          consume_data(item)              before the frame that timed text or data goes with
    sink    FinishingSink     finish()                        when the stream has come to its end in order
    sink    EndingSink        end(stream, reason, dropped)    when the stream is over, whatever the reason
    sink    StatusSink        status(change)                  when a source enters a state; from any thread
    sink    ForgettingSink    forget(stream)                  when a stream was removed; from any thread

Which capabilities a part has is looked up once, when it is added. A method of such a name that does not take the
arguments above, by these names, is refused in a sentence: it would be called for what it is not. A leading underscore
(`_change`) is allowed where an argument is not used.

**Threads.** A source is iterated by one thread, the stages of a stream are called by another, its sinks by a third. A
sink that several streams share is called by one thread for each of them.

**Errors.** Whatever a part raises ends its own stream as failed and no other. An `engines.errors.RoadlensError` is
shown as its sentence, anything else with its traceback.

**Time.** A stage or sink that waits holds up its own stream: a file waits for it, of a live stream frames are dropped
and counted. Each is timed under its `name` if it has one, else under its class'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import av
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream

from pipeline.frame import Analysis, CapturedFrom, Frame, Mode
from pipeline.packets import PacketTap
from pipeline.pictures.colors import ColorTags
from pipeline.pictures.planes import pixel_format
from pipeline.state import EndReason, StateChange


def _seconds(packet: Packet[Any]) -> float:
    return float("-inf") if packet.pts is None else float(packet.pts * packet.time_base)


# Sources --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class AudioPacket:
    """A compressed audio packet on its way past the models, timestamps already on the stream's timeline.

    `track` numbers the audio tracks of the stream from 0.
    """

    track: int
    packet: Packet[AudioStream]

    @property
    def time(self) -> float:
        """When it is heard, in seconds; before everything where the packet does not say."""
        return _seconds(self.packet)


@dataclass(frozen=True, slots=True)
class DataPacket:
    """A packet of timed text or of data, such as a camera's positions, timestamps already on the stream's timeline.

    `track` numbers the data tracks of the stream from 0.
    """

    track: int
    packet: Packet[Any]

    @property
    def time(self) -> float:
        """From when on it holds, in seconds; before everything where the packet does not say."""
        return _seconds(self.packet)


@dataclass(frozen=True, slots=True)
class Chapter:
    """A chapter of a recording: seconds on the stream's timeline, and its title."""

    begin: Fraction
    end: Fraction
    title: str


@dataclass(frozen=True, slots=True)
class Extras:
    """What a recording holds beside its pictures and its sound.

    Attributes:
        tags: what it says of itself, under FFmpeg's names.
        video_tags: language and name of its pictures' track.
        chapters: in order.
        data: templates of its tracks of timed text and of data, valid while the source is open.
        others: what is carried nowhere, in words.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    video_tags: Mapping[str, str] = field(default_factory=dict)
    chapters: tuple[Chapter, ...] = ()
    data: tuple[Stream, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(slots=True)
class StreamInfo:
    """What is known of a stream once it is open.

    Attributes:
        width, height: size of every frame it yields, upright, in pixels.
        pixel_format: pixel format of every frame it yields.
        time_base: seconds a timestamp unit.
        rate: nominal frames a second, for display and key-frame distance; timestamps rule.
        expected_frames: how many frames the container announces, or None.
        audio: templates of the audio tracks, valid while the source is open.
        color: what the pictures say of their colours.
        latency_bound: seconds beyond which a picture is dropped rather than given out; None for a file. A camera's
            follows what its stream must hold back: look at it for each picture.
        sample_aspect: how many times wider than high a pixel is shown.
        field_order: of interlaced pictures, which field is shown first: 2 for the upper, 3 for the lower one
            (AVFieldOrder); 0 where they are progressive.
        extras: what a recording holds beside pictures and sound.
        moving: whether each frame goes on from the one before; pictures of a folder may show anything.
    """

    width: int
    height: int
    pixel_format: str
    time_base: Fraction
    rate: Fraction
    expected_frames: int | None
    audio: tuple[AudioStream, ...] = ()
    color: ColorTags = field(default_factory=ColorTags)
    latency_bound: float | None = None
    sample_aspect: Fraction = Fraction(1)
    field_order: int = 0
    extras: Extras = field(default_factory=Extras)
    moving: bool = True

    @classmethod
    def of(
        cls,
        image: av.VideoFrame,
        time_base: Fraction,
        rate: Fraction,
        expected_frames: int | None,
        audio: tuple[AudioStream, ...] = (),
    ) -> Self:
        """What the first frame, as it will be yielded, and the container say."""
        size = image.width, image.height
        return cls(*size, pixel_format(image), time_base, rate, expected_frames, audio, ColorTags.of(image))


@dataclass(frozen=True, slots=True)
class Recorded:
    """When a recording begins.

    Attributes:
        clip: name of its file.
        at: Unix seconds, UTC.
        by: what says so.
    """

    clip: str
    at: float
    by: CapturedFrom


@dataclass(slots=True)
class SourceCounts:
    """What happened while reading.

    Attributes:
        decode_errors: packets that did not decode.
        missing: frames that the clips announce and that did not come out of them.
        skipped_clips: clips left out, name and reason.
        resets: timestamps that began anew.
        packets: packets of pictures that a live source has received. When a connection is over, each has become a
            frame, or it counts in `skipped` or `decode_errors`.
        skipped: packets that gave no frame, by reason: `start` before the first key frame of a connection, `behind`
            where decoding was too slow, `undecoded` of which the decoder made nothing, for they or what they refer to
            were damaged or lost, `end` that it held when the connection was over, `again` of a playlist that were read
            before.
        dropped: frames that were decoded, counted by their index and dropped before anybody got them, by reason: a live
            source's are `opening` while nobody iterates it, `old`, `superseded` by a newer one, and `stopped`.
        own_outputs: videos in the folder that roadlens wrote itself, and that are no clips of the trip.
        left_out: other files of the folder that are not read, by what they are: `proxies`, `pictures`, `other files`.
        recorded: when the clips read so far were recorded.
    """

    decode_errors: int = 0
    missing: int = 0
    skipped_clips: list[tuple[str, str]] = field(default_factory=list)
    resets: int = 0
    packets: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    own_outputs: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    recorded: list[Recorded] = field(default_factory=list)


class Source(Protocol):
    """A stream of frames. Opened once, iterated once by one thread, closed once or more, by any thread.

    Attributes:
        id: id of the stream; each frame carries it.
        address: where the frames come from, for people: without credentials.
        mode: `file` (every frame is wanted, `next` may be called late) or `live` (`next` is called at once, always).
        counts: what happened while reading, kept up to date.
    """

    id: str
    address: str
    mode: Mode
    counts: SourceCounts

    def open(self) -> StreamInfo:
        """Open it and say what it is.

        Raises:
            SourceError: it cannot be opened or holds no picture.
        """
        ...

    def __iter__(self) -> Iterator[Frame | AudioPacket | DataPacket]:
        """Its frames: upright, all of one size and of one pixel format that can be blended (`Normalizer` makes them
        so), `index` from 0 without a gap but for what `counts.dropped` says, `pts` growing. Sound and
        data come ahead of the frame that they go with.

        Raises:
            SourceError: it cannot be read any further; the stream has failed then.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Twice is allowed, and so is a source that was never opened."""
        ...


class WaitingSource(Protocol):
    """What a source that waits for somebody else, as a camera's does, has beside `Source`: all three methods.

    It tells the changes of its state to whoever made it; those of a source without these methods are said by the
    runtime. The methods return at once, come from any thread, and may come twice.
    """

    def stop(self) -> None:
        """Iterate no further: a waiting `next` or `open` ends, and so does the iteration."""
        ...

    def pause(self) -> None:
        """Close the connection; `next` waits until `resume` or `stop`."""
        ...

    def resume(self) -> None:
        """Connect again."""
        ...


class FileSource(Protocol):
    """A source that reads files.

    Attributes:
        paths: the files, known before the source is opened. No output of the run may be one of them, and a resumed run
            must be given the footage that the interrupted one read.
    """

    paths: tuple[Path, ...]


class TappedSource(Protocol):
    """A source that shows its compressed packets, to be kept as they came.

    Attributes:
        on_packet: called with each packet, in the reading thread; set until the source is opened.
    """

    on_packet: PacketTap | None


# Stages ---------------------------------------------------------------------------------------------------------------
class Stage(Protocol):
    """A step between fusing and the sinks. Analyses of a stream come in order, from one thread.

    One that only computes, by many short calls of OpenCV or NumPy, may have an attribute `takes_turns = True`: few
    streams at a time are in it, and hold each other up less. One that waits for something has none.
    """

    def process(self, analysis: Analysis) -> Analysis:
        """The analysis to hand on, the given one or another. Its frame's picture is shared with the decoder: what is
        drawn goes into a new one, `analysis.picture`.
        """
        ...


class RememberingStage(Protocol):
    """A stage that remembers frames, and is shown those just before the first one of a resumed run."""

    def remember(self, analysis: Analysis) -> None:
        """Look at the analysis of a frame that is not given out."""
        ...


class ForeseeingStage(Protocol):
    """A stage that is shown the frames of a file ahead of their turn.

    Attributes:
        ahead: how many frames, from 0 on, set before the run. As many wait, with their pictures in memory. Frames of a
            live stream, which must not get old, do not wait.
    """

    ahead: int

    def foresee(self, analysis: Analysis) -> None:
        """Look at the analysis of a frame, which comes to `process` (or `remember`) when `ahead` more have been shown,
        or no more come. It is the one that comes then: it is not to be altered yet.
        """
        ...


# Sinks ----------------------------------------------------------------------------------------------------------------
class Sink(Protocol):
    """An output. Analyses of a stream come in order, from one thread a stream."""

    def consume(self, analysis: Analysis) -> None:
        """Take an analysis; it is shared by all sinks of its stream: read only. What waits here holds up its own
        stream.
        """
        ...


class AudioSink(Protocol):
    """A sink that also wants the sound."""

    def consume_audio(self, item: AudioPacket) -> None:
        """Take a compressed packet of sound, ahead of the frame that follows it."""
        ...


class DataSink(Protocol):
    """A sink that also wants timed text and data."""

    def consume_data(self, item: DataPacket) -> None:
        """Take a packet of timed text or data, ahead of the frame that follows it."""
        ...


class FinishingSink(Protocol):
    """A sink of one stream that has something to do when the stream has come to its end in order."""

    def finish(self) -> None:
        """The last analysis has been consumed, and the stream is complete or was stopped; it has not failed."""
        ...


class EndingSink(Protocol):
    """A sink of several streams that is told when one of them is over."""

    def end(self, stream: str, reason: EndReason, dropped: int | None) -> None:
        """`stream` is over; `dropped` of its frames were not given out."""
        ...


class StatusSink(Protocol):
    """A sink that also wants to know what the sources are doing."""

    def status(self, change: StateChange) -> None:
        """A source entered a state; from any thread, one at a time. Must not wait."""
        ...


class ForgettingSink(Protocol):
    """A sink that remembers streams, and lets go of one that was removed."""

    def forget(self, stream: str) -> None:
        """A stream was removed; another one of its name may come. Must not wait."""
        ...
