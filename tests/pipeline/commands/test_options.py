"""Every flag of `run` and `serve` changes the configuration where it says, or is refused in one sentence."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import msgspec
import pytest

from engines.errors import UsageError
from pipeline import cli
from pipeline.config import Config, MetricsConfig
from tests.pipeline.commands.test_run import one_sentence

Run = Callable[..., CompletedProcess[str]]

CONFIG = """
streams: [{source: a.mp4, id: a}, {source: 'http://camera/live', id: b}]
models: [{model: m, every: 2}, {model: n}]
outputs: {hls: {folder: there, window: 9}, restream: [{address: 'udp://there:1/{stream}'}]}
publish: [{bind: 'tcp://127.0.0.1:1'}]
jsonl: there.jsonl
smoothing: {hold: 0.5}
"""

UDP = {"address": "udp://h:2/{stream}", "transport": "tcp", "timeout": 5.0}
SHARED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "sources": (["c.mp4"], {"streams[2].source": "c.mp4", "streams[2].realtime": False}),
    "output": (["-o", "out"], {"video.path": "out"}),
    "jsonl": (["--jsonl", "-"], {"jsonl": "-"}),
    "mcap": (["--mcap", "x.mcap"], {"mcap": "x.mcap"}),
    "instances": (["--instances"], {"instances": True}),
    "pub": (["--pub", "tcp://127.0.0.1:2"], {"publish[1].bind": "tcp://127.0.0.1:2", "publish[1].pattern": "pub"}),
    "push": (["--push", "ipc:///x"], {"publish[1].bind": "ipc:///x", "publish[1].pattern": "push"}),
    "restream": (["--restream", UDP["address"]], {f"outputs.restream[1].{key}": value for key, value in UDP.items()}),
    "hls": (["--hls", "here"], {"outputs.hls.folder": "here"}),
    "record": (["--record", "here"], {"outputs.record.folder": "here"}),
    "event_clips": (["--event-clips", "here"], {"event_clips.folder": "here"}),
    "metrics": (["--metrics", "0.0.0.0:9"], {"metrics.host": "0.0.0.0", "metrics.port": 9}),
    "model": (["--model", "x:3"], {"models[0].model": "x", "models[0].every": 3, "models[1].model": None}),
    "every": (["--every", "auto"], {"models[0].every": "auto", "models[1].every": "auto"}),
    "precision": (["--precision", "fp32"], {"models[0].precision": "fp32", "models[1].precision": "fp32"}),
    "device": (["--device", "cuda:1"], {"models[0].device": "cuda:1", "models[1].device": "cuda:1"}),
    "realtime": (["--realtime"], {"streams[0].realtime": True, "streams[1].realtime": True}),
    "mode": (["--mode", "live"], {"streams[0].mode": "live", "streams[1].mode": "live"}),
    "camera": (["--camera", "front"], {"streams[0].camera": "front", "streams[1].camera": "front"}),
    "track": (["--track", "2"], {"streams[0].track": 2, "streams[1].track": 2}),
    "ignore": (
        ["--ignore", "1,2 3,4 5,6"],
        {
            f"streams[{stream}].ignore.polygons[0][{corner}][{axis}]": 1.0 + 2 * corner + axis
            for stream in range(2)
            for corner in range(3)
            for axis in range(2)
        },
    ),
    "ignore_mask": (["--ignore-mask", "m.png"], {"streams[0].ignore.mask": "m.png", "streams[1].ignore.mask": "m.png"}),
    "bars": (["--no-bars"], {"streams[0].ignore.bars": False, "streams[1].ignore.bars": False}),
    "own_car": (
        ["--no-own-car"],
        {"streams[0].ignore.own_car": False, "streams[1].ignore.own_car": False},
    ),
    "anonymize": (["--anonymize"], {"anonymize.hold": 0.2}),
    "anonymize_sparing": (["--anonymize-sparing"], {"anonymize.sparing": True}),
    "ahead": (["--ahead"], {"ahead.contact": 2.5}),
    "smooth": (["--smooth"], {}),  # the configuration says already how
    "opacity": (["--opacity", "0.1"], {"overlay.opacity": 0.1}),
    "legend": (["--legend"], {"overlay.legend": True}),
    "heads_up": (["--heads-up"], {"overlay.heads_up": True}),
    "boxes": (["--no-boxes"], {"overlay.boxes": False}),
    "outlines": (["--no-outlines"], {"overlay.outlines": False}),
    "hide": (["--hide", "sky", "--hide", "road"], {"overlay.hide[0]": "sky", "overlay.hide[1]": "road"}),
    "preset": (["--preset", "slow"], {"video.preset": "slow", "outputs.encoder.preset": "slow"}),
    "crf": (["--crf", "7"], {"video.crf": 7, "outputs.encoder.crf": 7}),
    "encoder": (["--encoder", "libx264"], {"video.encoder": "libx264", "outputs.encoder.encoder": "libx264"}),
}
FLAGS = {
    "run": {**SHARED, "summary": (["--summary", "s.json"], {"summary": "s.json"})},
    "serve": {
        **SHARED,
        "workers": (["--workers", "2"], {"workers": 2}),
        "host": (["--host", "127.0.0.2"], {"serve.host": "127.0.0.2"}),
        "port": (["--port", "0"], {"serve.port": 0}),
        "token_file": (["--token-file", "t"], {"serve.token_file": "t"}),
        "allow_host": (["--allow-host", "n"], {"serve.allow_hosts[0]": "n"}),
        "source_folder": (["--source-folder", "d"], {"serve.source_folders[0]": "d"}),
        "root_path": (["--root-path", "/cams"], {"serve.root_path": "/cams"}),
        "trusted_proxy": (["--trusted-proxy", "10.0.0.1"], {"serve.trusted_proxies[0]": "10.0.0.1"}),
    },
}
OF_THE_COMMAND = {"run": {"config", "resume", "verbose"}, "serve": {"config", "verbose"}}
"""Parameters that are no part of a configuration."""

LINES = {
    "file": ["a.mp4", "--jsonl", "x"],
    "camera": ["rtsp://camera/live", "--jsonl", "x"],
    "pipe": ["-", "--jsonl", "x"],
}
VIDEO = {"file to video": ["a.mp4", "-o", "there"], "camera to HLS": ["rtsp://camera/live", "--hls", "there"]}
BASES = {"run": {**LINES, **VIDEO}, "serve": {"nothing": [], **LINES, **VIDEO}}
"""Command lines that a flag comes on top of."""

OF_OVERLAYS = ("opacity", "legend", "heads_up", "boxes", "outlines", "hide")
OF_FILES = ("realtime", "camera", "track")
OF_STREAMS = ("ignore", "ignore_mask", "bars", "own_car")
OF_ENCODERS = ("preset", "crf", "encoder")
CAMERAS = {"camera", "camera to HLS"}
PLAIN = {*LINES, *VIDEO} - {"pipe"}
REFUSED: dict[str, dict[str, set[str]]] = {
    "run": {
        "event_clips": {"config", *LINES, *VIDEO},  # nobody could save one: `run` has no API
        **dict.fromkeys(OF_FILES, CAMERAS),
        "mode": PLAIN,
        "instances": {*VIDEO},
        **{name: {*LINES} for name in ("anonymize", "anonymize_sparing", *OF_OVERLAYS, *OF_ENCODERS)},
    },
    "serve": {
        **{name: {"nothing", *CAMERAS} for name in OF_FILES},
        **{name: {"nothing"} for name in OF_STREAMS},
        "mode": {"nothing", *PLAIN},
        "instances": {"nothing", *VIDEO},
        "workers": {"pipe"},
        **{name: {"nothing", *LINES} for name in OF_ENCODERS},  # viewers get JPEGs
    },
}
"""Of which of them a flag is refused, for it would do nothing."""

MADE = {
    name: (key,)
    for name, key in {
        "sources": "streams[2]", "pub": "publish[1]", "push": "publish[1]", "model": "models", "anonymize": "anonymize",
        "record": "outputs.record", "event_clips": "event_clips", "metrics": "metrics",
        "ahead": "ahead", "anonymize_sparing": "anonymize",
    }.items()
}  # fmt: skip
"""What a flag makes whole, with defaults beside the value that it gives."""


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """A configuration as its values by key path, such as `models[0].model`."""
    if isinstance(value, dict):
        return {k: v for key, each in value.items() for k, v in leaves(each, f"{path}.{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for index, each in enumerate(value) for k, v in leaves(each, f"{path}[{index}]").items()}
    return {path.removeprefix("."): value}


def changed(before: Config, after: Config) -> dict[str, Any]:
    """Key paths whose value is another one, with the new value; None for those that are gone."""
    first, second = (leaves(msgspec.to_builtins(config, enc_hook=str)) for config in (before, after))
    return {key: second.get(key) for key in first.keys() | second.keys() if first.get(key) != second.get(key)}


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, roadlens_here: Run, tmp_path: Path) -> Callable[..., Config]:
    """Gives a command line to the command and returns the configuration that would run."""
    import pipeline.commands.console
    import pipeline.serve.server

    (tmp_path / "run.yaml").write_text(CONFIG)
    ran: list[Config] = []

    def keep(config: Config, *_: object, **__: object) -> int:
        ran.append(config)
        return 0

    monkeypatch.setattr(pipeline.commands.console, "run_session", keep)
    monkeypatch.setattr(pipeline.serve.server, "serve", keep)

    def configure(command: str, *arguments: str) -> Config:
        done = roadlens_here(command, *arguments)
        assert done.returncode == 0, done.stderr
        return ran.pop()

    return configure


@pytest.mark.parametrize("command", FLAGS)
def test_the_table_above_has_every_flag(commands: Any, command: str) -> None:
    names = {parameter.name for parameter in commands.commands[command].params} - {"help"}
    assert names == FLAGS[command].keys() | OF_THE_COMMAND[command]


@pytest.mark.seconds
@pytest.mark.parametrize(("command", "name"), [(command, name) for command, names in FLAGS.items() for name in names])
def test_a_flag_changes_what_it_says_and_nothing_else(
    configured: Callable[..., Config], roadlens_here: Run, command: str, name: str
) -> None:
    words, wanted = FLAGS[command][name]
    if "config" in REFUSED[command].get(name, ()):
        assert words[0] in one_sentence(roadlens_here(command, "--config", "run.yaml", *words), 2)
        return
    before = configured(command, "--config", "run.yaml")
    found = changed(before, configured(command, "--config", "run.yaml", *words))
    made = MADE.get(name, ())
    assert {key: value for key, value in found.items() if not key.startswith(made)} == {
        key: value for key, value in wanted.items() if not key.startswith(made)
    }
    assert wanted.items() <= {**dict.fromkeys(wanted), **found}.items()


@pytest.mark.seconds
@pytest.mark.parametrize(("command", "name"), [(command, name) for command, names in FLAGS.items() for name in names])
def test_a_flag_changes_something_or_is_refused(
    configured: Callable[..., Config], roadlens_here: Run, command: str, name: str
) -> None:
    words, wanted = FLAGS[command][name]
    places = {key.partition(".")[0].partition("[")[0] for key in wanted} or {"smoothing"}
    for base, arguments in BASES[command].items():
        if base in REFUSED[command].get(name, ()):
            said = one_sentence(roadlens_here(command, *arguments, *words), 2)
            assert words[0].replace("--no-", "--") in said
            continue
        found = changed(configured(command, *arguments), configured(command, *arguments, *words))
        assert found, base
        assert {key.partition(".")[0].partition("[")[0] for key in found} <= places, base


@pytest.mark.parametrize("command", ["run", "serve", "demo"])
def test_verbose_logs_more_and_resume_resumes(
    monkeypatch: pytest.MonkeyPatch, roadlens_here: Run, command: str
) -> None:
    import pipeline.serve.server
    from pipeline.commands import console

    levels: list[int] = []
    resumed: list[bool] = []

    def opened(_config: Config, *resume: Any, **_: object) -> Any:
        levels.append(logging.getLogger("pipeline").level)
        resumed.append(resume[:1] == (True,))
        raise UsageError("enough")

    monkeypatch.setattr(console, "_opened", opened)
    monkeypatch.setattr(pipeline.serve.server, "serve", opened)
    line = {"run": ["a.mp4", "-o", "b.mp4"], "serve": [], "demo": ["-o", "folder"]}[command]
    for words in ([], ["--verbose"], *([["--resume"]] if command == "run" else [])):
        one_sentence(roadlens_here(command, *line, *words), 2)
    assert levels[:2] == [logging.INFO, logging.DEBUG]
    assert resumed[2:] == ([True] if command == "run" else [])


def test_a_mapping_that_a_flag_makes_has_the_defaults(configured: Callable[..., Config]) -> None:
    from pipeline.analysis.smoothing import SmoothingOptions
    from pipeline.drawing.anonymize import AnonymizeOptions
    from pipeline.outputs.live.hls import HlsOptions

    asked = configured("run", "a.mp4", "--smooth", "--anonymize", "--hls", "h", "--metrics", "9")
    assert asked.smoothing == SmoothingOptions()
    assert asked.anonymize == AnonymizeOptions()
    assert asked.outputs.hls == HlsOptions(Path("h"))
    assert asked.metrics == MetricsConfig(9, "127.0.0.1")


def test_what_is_ignored_is_said_of_every_stream(configured: Callable[..., Config]) -> None:
    from pipeline.analysis.ignore import IgnoreOptions

    regions = ("--ignore", "0,90 160,90 160,96 0,96", "--ignore", "0,0 9,0 0,9.5")
    asked = configured("run", "a.mp4", "b.mp4", "--no-bars", *regions, "--ignore-mask", "m.png", "--jsonl", "o")
    polygons = (((0, 90), (160, 90), (160, 96), (0, 96)), ((0, 0), (9, 0), (0, 9.5)))
    assert {stream.ignore for stream in asked.streams} == {IgnoreOptions(False, polygons, Path("m.png"))}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "a.mp4", "--jsonl", "-", "--ignore", "1,2 3"], "--ignore '1,2 3' is no region; give three corners"),
        (["serve", "--realtime"], r"--realtime is said of the streams .* they name none; name one, or leave"),
        (
            ["run", "a.mp4", "--jsonl", "-", "--model", "lead-vehicle", "--smooth"],
            r"--smooth is about .* no --model gives",
        ),
        (
            ["run", "a.mp4", "-o", "b.mp4", "--encoder", "h264_nvenc", "--preset", "slow"],
            r"--preset is of the encoder x264",
        ),
        (["run", "rtsp://c/x", "--event-clips", "x"], r"nothing would save a clip .* `event_clips\.save_when`"),
        (["run", "a.mp4", "--event-clips", "x"], r"clips of events .* cut from what a camera sent, and no source is"),
        (["run", "a.mp4", "--jsonl", "-", "--summary", "-"], r"cannot both go to standard output"),
        (["run", "a.mp4", "--every", "seldom", "--jsonl", "-"], r"--every takes auto, 1 for every frame.*'seldom'"),
        (["run", "a.mp4", "--every", "0", "--jsonl", "-"], r"--every 0: .* every frame \(1\)"),
        (["run", "a.mp4", "--precision", "fp12", "--jsonl", "-"], r"--precision: `models\[0\]\.precision` is 'fp12'"),
        (["run", "a.mp4", "--preset", "warp", "--jsonl", "-"], r"--preset: `video\.preset` is 'warp'"),
        (["run", "a.mp4", "--to", "rtsp://h/x"], r"--to is called --restream now"),
        (["serve", "--events=x"], r"--events is called --event-clips now"),
        (["record", "tcp://h:1", "-o", "x.mcap"], r"`roadlens record` is called `roadlens mcap record` now"),
        (["replay", "--help"], r"`roadlens replay` is called `roadlens mcap replay` now"),
        (["recover", "x.mcap"], r"`roadlens recover` is called `roadlens mcap recover` now"),
        (["config", "check", "old.yaml"], r"old\.yaml, line 1: `events` is called `event_clips` now"),
        (["run", "--config", "older.yaml"], r"older\.yaml, line 1: `outputs\.push` is called `outputs\.restream` now"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_would_be_ignored_is_refused(roadlens_here: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "old.yaml").write_text("events: {folder: x}\n")
    (tmp_path / "older.yaml").write_text("outputs: {push: [{address: 'udp://h:1'}]}\n")
    assert re.search(says, one_sentence(roadlens_here(*arguments), 2))


def test_help_lists_every_command_in_a_group(roadlens_here: Run) -> None:
    lines = roadlens_here("--help").stdout.splitlines()
    titles = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Options", "Run", "Archive", "Look", "Models", "Train"]
    listed = {line.split()[0] for line in lines if line.startswith("  ") and line.strip()}
    assert {name for names in cli.GROUPS.values() for name in names} <= listed
