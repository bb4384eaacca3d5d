"""The page of a trip, and cut clips, as a person has them: opened from the disk in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
pytest.importorskip("jinja2")
pytest.importorskip("playwright", reason="playwright is not installed")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from pipeline.archive.find.cutting import cut
from pipeline.archive.rows import EventRow, ObjectRow
from pipeline.archive.trip.choosing import choose
from pipeline.archive.trip.page import render, tell, write
from pipeline.pictures.jpeg import encode_jpeg
from tests.footage import write_clip
from tests.pipeline.archive.made_up import BEGUN, EVERY, RATE, clip, put
from tests.pipeline.archive.test_trip import frames
from tests.pipeline.fake_analysis import PICTURE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LONG = 120_000
"""Milliseconds that nothing here takes; only a hang does."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]

PLAYED = """async video => {
  const ended = new Promise((resolve, reject) => { video.onended = resolve; video.onerror = () => reject(video.error) })
  video.muted = true; video.playbackRate = 4
  await video.play(); await ended
  return [video.videoWidth, video.duration, video.error === null]
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day of two trips, a way, two events of which one has its clip."""
    folder = tmp_path_factory.mktemp("trip")
    write_clip(folder / "front.mp4", frames=120, fps=30, gop=15, size=(320, 180), audio=True)
    rows = frames(8, BEGUN, car=[0, 1, 2, 1, 0, 0, 1, 1], person=[0, 1, 0, 0, 0, 1, 1, 0])
    for k, row in enumerate(rows):
        row.latitude, row.longitude, row.speed, row.heading = 48.1 + k * 5e-5, 11.5 + k * k * 2e-5, 9.0, 10.0
    first = clip(
        1, BEGUN, rows, path=folder / "front.mp4",
        objects=[ObjectRow(k * EVERY, "car", 0.9, 1, 1, 5, 5, 1, "m") for k in range(1, 4)],
        events=[
            EventRow("cut_in", 1.5, 1.9, 1.6, 0.8, (1,), "ahead", "car cuts in", '{"distance_m":9.5}'),
            EventRow("standstill", 2.5, 3.9, None, 0.9),
        ],
    )  # fmt: skip
    first.thumbnails = {0: encode_jpeg(PICTURE)[0], 60: encode_jpeg(PICTURE)[0]}
    other = clip(2, BEGUN + 1000, frames(4, BEGUN + 1000), events=[EventRow("approach", 0.0, 0.5, None, 0.7)])
    other.thumbnails = {0: encode_jpeg(PICTURE)[0]}
    archive = put(folder / "archive", [first, other])
    write(render(archive, tell(archive, choose(archive, "2023-11-14"), 1 << 26)), folder / "trip.html")
    return folder / "trip.html"


def opened(browser: Browser, address: str, **how: Any) -> tuple[Page, list[str], list[str]]:
    """A page, what it asked for, and what it complained of."""
    page = browser.new_context(reduced_motion="reduce", **how).new_page()
    page.set_default_timeout(LONG)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(address, timeout=LONG)
    return page, asked, errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_the_page_is_fit_for_everybody_in_light_dark_and_on_a_phone(
    scheme: Any, size: tuple[int, int], browser: Browser, page_file: Path
) -> None:
    page, asked, errors = opened(
        browser, page_file.as_uri(), color_scheme=scheme, viewport={"width": size[0], "height": size[1]}
    )
    found = Axe().run(page).response["violations"]
    assert [f"{v['id']}: {[n['target'] for n in v['nodes']]}" for v in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert errors == []
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []


def test_the_clips_of_the_page_play_to_their_end_and_its_way_can_be_saved(browser: Browser, page_file: Path) -> None:
    page, _, errors = opened(browser, page_file.as_uri())
    videos = page.locator("video")
    assert videos.count() == 2
    for k in range(2):
        width, seconds, whole = videos.nth(k).evaluate(PLAYED)
        assert (width, whole) == (320, True)
        assert 2.0 < seconds <= 4.1
    with page.expect_download() as download:
        page.get_by_text("Save as GeoJSON").click()
    saved = json.loads(Path(download.value.path()).read_bytes())
    assert saved["features"][0]["geometry"]["type"] == "LineString"
    page.locator(".marker").first.click()
    assert page.evaluate("location.hash") == "#event-1-1"
    assert errors == []


def test_a_cut_clip_plays_in_a_browser_and_for_ffprobe_and_begins_with_a_key_frame(
    browser: Browser, tmp_path: Path
) -> None:
    write_clip(tmp_path / "clip.mp4", frames=75, gop=12, bframes=2, audio=True, start_pts=90_000)
    cut(tmp_path / "clip.mp4", 1.0, 2.0, tmp_path / "cut.mp4", BEGUN, "why")
    page, _, _ = opened(browser, (tmp_path / "cut.mp4").as_uri())
    width, seconds, whole = page.locator("video").evaluate(PLAYED)
    assert (width, whole) == (320, True)
    assert 1.0 <= seconds <= 1.0 + 12 / 25 + 4 / RATE
    if (ffprobe := shutil.which("ffprobe")) is None:
        pytest.skip("there is no ffprobe on this machine")
    entries = "packet=flags:format_tags=creation_time"
    command = [ffprobe, "-v", "error", "-select_streams", "v", "-show_entries", entries, "-of", "json"]
    said = subprocess.run([*command, tmp_path / "cut.mp4"], capture_output=True, check=True, text=True)
    assert said.stderr == ""
    told = json.loads(said.stdout)
    assert told["packets"][0]["flags"].startswith("K")
    assert told["format"]["tags"]["creation_time"].startswith("2023-11-14T22:13:20")
