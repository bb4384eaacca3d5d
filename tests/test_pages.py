"""What the README and the pages beside the code show: snippets run, commands parsed, links followed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import pytest
import typer

import engines.bundled
from pipeline import cli
from pipeline.config import read_config
from pipeline.messages import headers
from pipeline.sources.synthetic import SyntheticOptions, synthetic_frames
from tests.footage import write_clip

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for folder in (".", "deploy", "engines", "pipeline", "tests", "training")
    for path in (ROOT.glob("*.md") if folder == "." else (ROOT / folder).rglob("*.md"))
)
WHERE = {str(path.relative_to(ROOT)): path.read_text() for path in PAGES}


def fenced(page: str, language: str) -> list[str]:
    """The blocks of a language in a page; `language` is the whole line behind the backticks."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The command lines of a page, each in one line: those of indented blocks and of fenced ones without a language."""
    plain = re.sub(r"^```\w.*?^```", "", page, flags=re.MULTILINE | re.DOTALL).replace("\\\n", " ")
    lines = re.findall(r"^    (roadlens .*)$", plain, re.MULTILINE)
    lines += [line for block in fenced(plain, "") for line in block.splitlines() if line.startswith("roadlens ")]
    return [line.partition(" #")[0].strip() for line in lines]


COMMANDS = [(name, line) for name, text in WHERE.items() for line in commands(text) if name != "CHANGELOG.md"]
SNIPPETS = [(name, code) for name in ("README.md", "pipeline/PYTHON.md") for code in fenced(WHERE[name], "python")]
CONFIGURATIONS = [
    (name, code) for name, text in WHERE.items() for code in fenced(text, "yaml") if name != "CONTRIBUTING.md"
]


@cache
def root() -> Any:
    """The command `roadlens` with what every package adds to it."""
    cli._add_commands()
    return typer.main.get_command(cli.app)


def refusal(words: list[str]) -> str | None:
    """What `roadlens` says against the words behind its name, or None where it takes them; nothing is run."""
    command, name = root(), "roadlens"
    while hasattr(command, "commands"):
        name, *words = words
        if name not in command.commands:
            return f"there is no command {name}"
        command = command.commands[name]
    try:
        command.make_context(name, list(words))
    except Exception as error:  # noqa: BLE001  # typer brings its own copy of click or uses the installed one: no class to name
        return str(getattr(error, "message", error))
    return None


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) > 50
    assert len(SNIPPETS) == 4
    assert len(CONFIGURATIONS) >= 5


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_is_one(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands and flags are known, values are of the right kind."""
    monkeypatch.chdir(tmp_path)
    assert refusal(shlex.split(line.partition(" | ")[0])[1:]) is None, page


@pytest.mark.parametrize(
    "line", ["roadlens run drive.mp4 --no-such-flag x", "roadlens sing", "roadlens run drive.mp4 --crf many"]
)
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    assert refusal(shlex.split(line)[1:])


@pytest.mark.slow
@pytest.mark.parametrize(("page", "snippet"), SNIPPETS)
def test_python_snippets_run(page: str, snippet: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "drive.mp4", frames=5, size=(640, 360))
    frame = next(synthetic_frames(SyntheticOptions(width=640, height=360, seconds=1)))
    cv2.imwrite(str(tmp_path / "road.png"), frame.picture[..., ::-1])
    done = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    wanted = r"\(256, 320\) uint8\n" if "road.png" in snippet else r"([^\n]+\n){5}"
    assert re.fullmatch(wanted, done.stdout) or "Alarm" in snippet, done.stdout


@pytest.mark.parametrize("page", WHERE)
def test_other_python_is_python(page: str) -> None:
    for code in fenced(WHERE[page], "python no-run"):
        compile(code, page, "exec")


@pytest.mark.parametrize(("page", "text"), CONFIGURATIONS)
def test_every_configuration_is_right(page: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    read_config(tmp_path / "run.yaml")


def test_the_line_of_json_is_one_of_ours() -> None:
    (text,) = fenced(WHERE["README.md"], "json")
    line = json.loads(text)
    schema = headers.schema()
    known = schema["$defs"]["AnalysisMessage"]["properties"]
    assert line.keys() <= known.keys()
    assert line["boxes"][0].keys() <= schema["$defs"]["BoxMessage"]["properties"].keys()


@pytest.mark.parametrize("page", WHERE)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", WHERE[page]):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}, f"{page}: {link}"


@pytest.mark.parametrize("page", WHERE)
def test_programs_that_pages_name_exist(page: str) -> None:
    text = WHERE[page]
    for module in re.findall(r"python -m (tests\.[\w.]+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    for path in re.findall(r"(?:python\s+|bash )((?:tests|deploy|\.ci)/[\w./-]+)", text):
        assert (ROOT / path).exists(), path


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in re.findall(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)", WHERE[page]):
            if "://" not in link:
                waiting.append(str(((ROOT / page).parent / link).resolve().relative_to(ROOT)))
    assert WHERE.keys() - reached == set()


def test_the_readme_is_short_and_has_exactly_two_set_up_commands() -> None:
    readme = WHERE["README.md"]
    assert len(readme.split()) <= 1100
    set_up = [line.strip() for line in readme.splitlines() if line.strip().startswith("pip install")]
    assert set_up == ["pip install . && roadlens demo", "pip install -e '.[dev]' && pytest"]
    assert "cityscapes-unet" in engines.bundled.names()
