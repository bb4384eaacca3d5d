"""Every flag of every command does something, or is refused where it would not: a new flag needs a row here.

Those of `run` and `serve` have a table of their own, `test_options.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.pipeline.commands.test_run import one_sentence

Run = Callable[..., "CompletedProcess[str]"]

ELSEWHERE = {"run", "serve"}

EFFECTIVE: dict[str, str] = {
    "demo": "model precision device folder seconds verbose",
    "subscribe": "endpoint pull stream output kind server_key key until_end timeout as_json count seen",
    "config check": "file",
    "config schema": "",
    "keys new": "name folder",
    "keys show": "file",
    "mcap record": "endpoint output pull stream pictures views until_end seconds server_key key",
    "mcap replay": "recording pub push realtime speed wait allow_remote server_key clients",
    "mcap recover": "recording output",
    "archive": "inputs config every processes ray tries again drop_replaced verbose model precision device",
    "find": "archive expression json clips before after limit",
    "trip": "archive which output megabytes",
    "export-labels": "archive folder format_ where limit per_clip model second device",
    "models import": "model output classes frames size pixels scale mean std order layout fill inputs task take boxes "
    "unit scores background threshold nms most min_score confidence name version licence author training_data as_json",
    "models list": "as_json",
    "models info": "model as_json",
    "models verify": "model precision footage labels min_agreement max_miou_drop count as_json",
    "models bench": "model precision batch against footage seconds in_flight threads as_json",
    "models familiarize": "model frames count as_json",
    "models convert": "model frames precision output min_agreement count as_json",
    "models quantize": "model frames output precision subset_size min_agreement keep as_json",
    "engines build": "model precision device batch opt_batch workspace level tf32 backend cache check as_json",
    "engines list": "cache as_json",
    "engines prune": "cache days every dry_run",
    "engines bench": "model precision backend device batch footage seconds in_flight as_json",
    "engines verify": "model footage precision backend device min_agreement count as_json",
    "data check": "folder name as_json",
    "data show": "folder output split number name",
    "data split": "folder output seed name",
    "data fetch": "name folder",
    "train": "recipe data overrides output resume cache skip_broken devices nodes",
    "eval": "model data split precision as_json output recipe cache skip_broken",
    "export": "checkpoint output blend height width confidence version metrics data recipe",
    "report": "models data split output runs markdown readme seconds cache skip_broken",
    "explain": "model image target method output arrays video at region score layer window stride threshold weights "
    "normalisation size",
    "explain-eval": "model data method split chosen_on target limit rules sanity layer window stride weights "
    "normalisation size as_json output",
}
"""Parameters of each command that do something beside any others, but for the ones below."""

TCP = "tcp://127.0.0.1:1"
IDLE = [
    (f"subscribe {TCP} --json --output x", "--json prints headers, and with --output they are written instead"),
    (f"subscribe {TCP} --count 3 --kind status", "--count is about analyses, and --kind asks for none"),
    (f"subscribe {TCP} --with car --kind heartbeat", "--with is about analyses"),
    (f"subscribe {TCP} --with car --pull", "classes are chosen by the topics of PUB"),
    (f"subscribe {TCP} --kind picture --pull", "--kind picture has a publisher of PUB make pictures"),
    (f"subscribe {TCP} --key own.key_secret", "of use with the publisher's public key only"),
    (f"mcap record {TCP} -o x.mcap --pictures --pull", "--pictures has a publisher of PUB make pictures"),
    (f"mcap record {TCP} -o x.mcap --key own.key_secret", "of use with the publisher's public key only"),
    (f"mcap replay x.mcap --pub {TCP} --fast --speed 2", "--speed is of the pace"),
    (f"mcap replay x.mcap --push {TCP} --wait", "--wait is for --pub"),
    (f"mcap replay x.mcap --pub {TCP} --clients any", "--clients says who may read what --server-key encrypts"),
    ("engines build cityscapes-unet --check --workspace 9", "--workspace is about building, and --check"),
    ("engines build cityscapes-unet --check --json", "--json is about building"),
    ("engines build lead-vehicle --backend tensorrt-rtx --device cuda:1", "--device names a GPU, and a plan"),
    ("engines prune --all --days 3", "--days chooses plans, and --all means every one"),
    ("engines verify cityscapes-unet --footage x --backend openvino --device cuda:1", "--device names a GPU"),
    ("models verify cityscapes-unet --footage x --max-miou-drop 2", "--max-miou-drop needs pictures whose classes"),
    ("train mnist-circles --data x --cache y", "--cache changes nothing of mnist-circles"),
    ("train mnist-foreground --data x --skip-broken", "--skip-broken changes nothing of mnist-foreground"),
    ("train pet-box --data x --cache y", "--cache changes nothing of pet-box"),
    ("explain -m vgg16 x.jpg --window 9", "--window is of the method occlusion, which is not asked for"),
    ("explain -m vgg16 x.jpg --method occlusion --layer x", "--layer is of the method gradcam"),
    ("explain-eval -m vgg16 --data x --method gradient --stride 9", "--stride is of the method occlusion"),
]  # fmt: skip


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for each, below in command.commands.items():
        if not below.hidden:
            yield from leaves(below, f"{name} {each}".strip())


def test_the_table_has_every_flag_of_every_command(commands: Any) -> None:
    found = {name: {p.name for p in command.params} - {"help"} for name, command in leaves(commands)}
    assert {name: set(row.split()) for name, row in EFFECTIVE.items()} == {
        name: names for name, names in found.items() if name not in ELSEWHERE
    }


@pytest.mark.parametrize(("line", "says"), IDLE, ids=lambda value: value if " -" in value else "")
def test_a_flag_that_would_do_nothing_is_refused(roadlens_here: Run, line: str, says: str) -> None:
    assert says in one_sentence(roadlens_here(*line.split()), 2)
