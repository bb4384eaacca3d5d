"""The dashboard as a person has it: a real browser at a real server.

`ROADLENS_SCREENSHOTS=folder` keeps pictures of it, for the documentation.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import pytest

from pipeline.frame import Box
from pipeline.outputs.event_clip import EventClipOptions
from pipeline.outputs.live.hls import HlsOptions
from pipeline.outputs.live.opening import OutputOptions
from pipeline.outputs.live.segments import RecordingOptions
from pipeline.state import SourceState, StateChange
from tests.footage import write_clip
from tests.pipeline.fake_analysis import analysis
from tests.pipeline.rtsp_server import Mount, RtspServer, missing, write_units
from tests.pipeline.serve.conftest import Server, running
from tests.pipeline.serve.reverse_proxy import Habits, certificate, proxying

pytest.importorskip("playwright", reason="playwright is not installed")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVE = "synthetic:?seconds=600&width=640&height=360"
TOKEN = "0123456789abcdef0123"
LONG = 120_000
"""Milliseconds that nothing here takes; only a hang does."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def server(segmenter: Path) -> Iterator[Server]:
    with running(segmenter) as made:
        yield made


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    errors: list[str] = []
    context = browser.new_context(
        viewport={"width": 1280, "height": 860}, color_scheme="light", reduced_motion="reduce"
    )
    made = context.new_page()
    made.set_default_timeout(LONG)
    made.on("pageerror", lambda error: errors.append(str(error)))
    made.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    made.goto(server.url, timeout=LONG)
    yield made
    context.close()
    for stream in server.client.get("/api/v1/streams").json()["streams"]:
        server.client.delete(f"/api/v1/streams/{stream['id']}")
    # The browser notes as errors what is none: a refused form (422), and a question about a stream just removed (404).
    assert [e for e in errors if "422" not in e and "404" not in e] == []


def see(locator: Any) -> Any:
    return expect(locator)


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['help']}: {[n['target'] for n in v['nodes']]}" for v in found]


def keep(page: Page, name: str) -> None:
    folder = os.environ.get("ROADLENS_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.jpg", type="jpeg", quality=72)


def test_a_stream_is_added_watched_steered_and_removed(page: Page, server: Server) -> None:
    see(page.locator("#empty")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Add stream").click()
    page.get_by_label("Source").fill("nowhere.mp4")
    page.get_by_role("button", name="Add", exact=True).click()
    see(page.locator("#e-source")).to_contain_text("a client may give", timeout=LONG)
    see(page.get_by_label("Source")).to_have_attribute("aria-invalid", "true")
    see(page.get_by_label("Source")).to_be_focused()

    page.get_by_label("Source").fill(DRIVE)
    page.get_by_label("Name").fill("front")
    page.keyboard.press("Enter")
    card = page.get_by_role("article", name="front")
    see(card.locator(".badge")).to_have_text("Streaming", timeout=LONG)
    see(page.locator("#log")).to_contain_text("Added", timeout=LONG)

    # The pictures move: more and more of them are shown, and they are not the same.
    canvas = card.locator("canvas")
    see(canvas).to_have_attribute("data-shown", re.compile(r"\d+"), timeout=LONG)
    first = canvas.screenshot()
    shown = int(canvas.get_attribute("data-shown") or 0)
    for _ in range(600):
        if int(canvas.get_attribute("data-shown") or 0) > shown + 5:
            break
        page.wait_for_timeout(100)
    assert canvas.screenshot() != first

    # What is drawn is steered.
    page.locator("#opacity").evaluate("slider => { slider.value = 90; slider.dispatchEvent(new Event('change')); }")
    legend = page.get_by_role("button", name="class 1")
    see(legend).to_have_attribute("aria-pressed", "true", timeout=LONG)
    legend.click()
    see(legend).to_have_attribute("aria-pressed", "false")
    wanted = {"opacity": 0.9, "hide": ["class 1"]}
    for _ in range(600):
        style = server.client.get("/api/v1/streams/front/overlay").json()
        if {k: style[k] for k in wanted} == wanted:
            break
        page.wait_for_timeout(100)
    assert {k: style[k] for k in wanted} == wanted
    page.get_by_role("button", name="As a table").click()
    see(page.locator("#chart-table table")).to_be_visible(timeout=LONG)

    # States are seen as they change.
    stream = server.service.session.streams["front"]
    stream.change = StateChange(
        "front", SourceState.BACKING_OFF, "the camera does not answer", "timeout", 1.0, 2, 0, 4.0
    )
    server.service.events.changed(stream.change)
    see(card.locator(".badge")).to_have_text("Backing off", timeout=LONG)
    see(card.locator(".away")).to_contain_text("the camera does not answer")
    card.get_by_role("button", name="Pause").click()
    see(card.locator(".badge")).to_have_text("Paused", timeout=LONG)
    card.get_by_role("button", name="Go on").click()
    see(card.locator(".badge")).to_have_text("Streaming", timeout=LONG)

    card.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    see(card).to_have_count(0, timeout=LONG)
    see(page.locator("#log")).to_contain_text("Removed", timeout=LONG)
    see(page.locator("#empty")).to_be_visible(timeout=LONG)


@pytest.mark.skipif(bool(missing()), reason=missing() or "there")
def test_a_camera_s_outage_is_seen_and_its_last_seconds_are_saved(
    browser: Browser, segmenter: Path, tmp_path: Path
) -> None:
    """A real RTSP server: it is frozen, then killed, and comes back; the button saves what it sent."""
    write_clip(tmp_path / "clip.mp4", frames=50, size=(320, 180), gop=10)
    units = write_units(tmp_path / "clip.mp4", tmp_path / "clip.units", 10)
    clips = EventClipOptions(tmp_path / "events", before=3, after=1)
    with RtspServer({"/cam": Mount(units)}) as camera, running(segmenter, settings={"event_clips": clips}) as server:
        context = browser.new_context(reduced_motion="reduce")
        page = context.new_page()
        page.set_default_timeout(LONG)
        page.goto(server.url, timeout=LONG)
        live = {"latency_bound": 3600, "read_timeout": 3, "open_timeout": 60}
        body = {"source": camera.url("/cam"), "id": "front", "live": live}
        assert server.client.post("/api/v1/streams", json=body).status_code == 201
        card = page.locator(".card")
        badge, canvas = card.locator(".badge"), card.locator("canvas[data-shown]")

        def moves() -> None:
            see(badge).to_have_text("Streaming", timeout=LONG)
            shown = canvas.get_attribute("data-shown", timeout=LONG)
            see(canvas).not_to_have_attribute("data-shown", shown, timeout=LONG)

        moves()
        card.get_by_role("button", name="Save what led up to now").click()
        see(page.locator("#toast")).to_contain_text("is being saved", timeout=LONG)
        see(page.locator("#log")).to_contain_text("Saving", timeout=LONG)

        saved_clip = page.locator("#files button", has_text="Clip: requested")
        saved_clip.click(timeout=LONG)
        see(page.locator("#play-title")).to_contain_text("Clip: requested")
        if plays(page):
            until(page, "document.getElementById('play-video').videoWidth === 320")
        page.get_by_role("button", name="Close").click()

        camera.freeze()
        see(badge).to_have_text(re.compile("Stalled|Backing off|Connecting"), timeout=LONG)
        see(card.locator(".away")).to_contain_text("nothing has come from", timeout=LONG)
        assert violations(page) == []
        camera.thaw()
        moves()
        see(card.locator(".away")).to_be_hidden(timeout=LONG)

        camera.kill()
        see(card.locator(".away")).to_contain_text("connection refused", timeout=LONG)
        keep(page, "dashboard-outage")
        camera.start()
        moves()
        see(page.locator("#log")).to_contain_text("Stalled")
        context.close()
    (saved,) = (tmp_path / "events").rglob("*.mp4")
    with av.open(str(saved)) as clip:
        assert sum(1 for _ in clip.decode(video=0)) > 10


def test_what_is_encoded_anyway_is_shown_as_video(browser: Browser, segmenter: Path, tmp_path: Path) -> None:
    settings = {"outputs": OutputOptions(hls=HlsOptions(tmp_path))}
    with running(segmenter, settings=settings) as server:
        page = browser.new_context(reduced_motion="reduce").new_page()
        page.set_default_timeout(LONG)
        page.goto(server.url, timeout=LONG)
        if not page.evaluate("MediaSource.isTypeSupported('video/mp4; codecs=\"avc1.64001f\"')"):
            pytest.skip("this Chromium plays no H.264")
        body = {"source": DRIVE, "id": "front", "realtime": True}
        assert server.client.post("/api/v1/streams", json=body).status_code == 201
        video = page.locator("video[data-shown]")
        see(video).to_be_visible(timeout=LONG)
        see(page.locator(".card canvas")).to_be_hidden()
        for _ in range(3):
            shown = video.get_attribute("data-shown")
            see(video).not_to_have_attribute("data-shown", shown, timeout=LONG)
        width, late = video.evaluate("v => [v.videoWidth, v.buffered.end(v.buffered.length - 1) - v.currentTime]")
        assert width == 640
        assert late < 30, "it follows; how closely depends on the machine"
        assert violations(page) == []
        page.context.close()


def plays(page: Page) -> bool:
    return bool(page.evaluate("MediaSource.isTypeSupported('video/mp4; codecs=\"avc1.64001f\"')"))


def until(page: Page, expression: str) -> None:
    """Wait for what holds in the page. Playwright's own waiting needs `eval`, which the page's policy forbids."""
    for _ in range(LONG // 100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(expression)


def test_the_past_is_seen_and_played(browser: Browser, segmenter: Path, tmp_path: Path) -> None:
    recording = RecordingOptions(tmp_path, segment_seconds=2)
    with running(segmenter, settings={"outputs": OutputOptions(record=recording)}) as server:
        errors: list[str] = []
        page = browser.new_context(reduced_motion="reduce", viewport={"width": 1280, "height": 900}).new_page()
        page.set_default_timeout(LONG)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url, timeout=LONG)
        # Whatever the machine's load, its pictures are given out.
        body = {"source": DRIVE, "id": "front", "realtime": True, "live": {"latency_bound": 3600}}
        assert server.client.post("/api/v1/streams", json=body).status_code == 201
        files = page.locator("#files button")
        for _ in range(LONG // 200):
            if files.count() > 2:
                break
            car = Box(0, 0, 9, 9, 13, "car", 0.9, "model")  # the tests' model sees none
            server.service.history.consume(analysis(stream="front", area={}, boxes=(car,)))
            page.wait_for_timeout(200)
        see(files.nth(2)).to_be_visible()

        # What was seen can be read along the line, by keyboard too, and in a table.
        line = page.locator("#timeline")
        see(line).to_have_attribute("aria-valuetext", re.compile("to .* points, seen: "), timeout=LONG)
        line.focus()
        page.keyboard.press("Home")
        see(page.locator("#timeline-tip")).to_be_visible()
        page.keyboard.press("End")
        see(line).to_have_attribute("aria-valuetext", re.compile("; streaming; "))
        for _ in range(60):  # as far as there were frames
            if "class" in str(line.get_attribute("aria-valuetext")):
                break
            page.keyboard.press("ArrowLeft")
        see(line).to_have_attribute("aria-valuetext", re.compile(r"class \d+ \d+ %"))
        page.locator("#past-table-button").click()
        see(page.locator("#past-table tbody tr").first).to_contain_text("Streaming")
        assert violations(page) == [], "table"
        page.locator("#past-table-button").click()
        page.get_by_role("button", name="15 min").click()
        see(page.get_by_role("button", name="15 min")).to_have_attribute("aria-pressed", "true")

        # A recording plays from where it is asked for, with what was seen beside it.
        files.last.click()
        see(page.locator("#player")).to_be_visible()
        see(page.locator("#play-title")).to_contain_text("Recording")
        href = page.locator("#play-download").get_attribute("href")
        assert server.client.get(str(href), headers={"range": "bytes=0-9"}).status_code == 206
        if plays(page):
            video = "document.getElementById('play-video')"
            until(page, f"{video}.videoWidth === 640 && {video}.currentTime > 0.2")
            page.locator("#play-speed").select_option("4")
            until(page, f"{video}.playbackRate === 4")
            first = page.locator("#play-title").text_content()
            see(page.locator("#play-title")).not_to_have_text(str(first), timeout=LONG)  # the next one follows
            files.last.click()
            page.locator("#play-video").evaluate("video => video.pause()")
            see(page.locator("#play-seen")).to_be_visible(timeout=LONG)
            page.locator("#play-marks").get_by_role("button", name="car").first.click()
            page.locator("#play-strip").focus()
            page.keyboard.press("Home")
            page.keyboard.press("Enter")
            until(page, f"{video}.currentTime < 0.3")
        page.get_by_role("button", name="Close").click()
        page.locator("#log button").last.click()  # the moment at which the stream began
        see(page.locator("#player, #play-said").locator("visible=true").first).to_be_visible(timeout=LONG)
        files.last.click()
        keep(page, "dashboard-player")
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]  # a literal
            assert violations(page) == [], theme
        page.get_by_role("button", name="Close").click()
        see(page.locator("#player")).to_be_hidden()
        assert errors == []
        page.context.close()


def test_what_is_drawn_is_switched(page: Page, server: Server) -> None:
    server.client.post("/api/v1/streams", json={"source": DRIVE, "id": "front"})
    for name, key, wanted in (("Boxes", "boxes", False), ("Outlines", "outlines", False), ("Legend", "legend", True)):
        button = page.locator("#drawn").get_by_role("button", name=name)
        see(button).to_be_enabled(timeout=LONG)
        see(button).to_have_attribute("aria-pressed", str(not wanted).lower(), timeout=LONG)
        button.click()
        for _ in range(600):
            if server.client.get("/api/v1/streams/front/overlay").json()[key] is wanted:
                break
            page.wait_for_timeout(100)
        assert server.client.get("/api/v1/streams/front/overlay").json()[key] is wanted
        see(button).to_have_attribute("aria-pressed", str(wanted).lower())
    page.get_by_role("button", name="Add stream").click()
    page.locator("#more summary").click()
    for field in page.locator("#more-fields .field").all():
        see(field.locator(".hint")).not_to_be_empty()
    page.keyboard.press("Escape")
    for control in page.locator("button:visible, input:visible, select:visible").all():
        assert control.get_attribute("title") or control.get_attribute("aria-describedby"), control.inner_html()


def test_the_last_picture_of_a_stream_that_is_over_is_shown_to_who_comes_later(page: Page, server: Server) -> None:
    server.client.post("/api/v1/streams", json={"source": DRIVE.replace("600", "1"), "id": "front"})
    badge = page.locator(".card .badge")
    see(badge).to_have_text("Ended", timeout=LONG)
    page.reload()
    see(badge).to_have_text("Ended", timeout=LONG)
    canvas = page.locator(".card canvas")
    see(canvas).to_have_attribute("data-shown", "last", timeout=LONG)
    bright = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 < 3 && v > 100)"
    assert canvas.evaluate(bright)
    assert canvas.evaluate("c => c.width") == 640


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1900])
def test_a_tile_does_not_wrap(page: Page, server: Server, width: int) -> None:
    for name in ("front", "a-camera-with-a-name-that-is-rather-long-for-a-tile"):
        server.client.post("/api/v1/streams", json={"source": DRIVE, "id": name})
    page.set_viewport_size({"width": width, "height": 900})
    see(page.locator(".card")).to_have_count(2, timeout=LONG)
    see(page.locator(".card .badge").last).to_have_text("Streaming", timeout=LONG)
    assert page.locator("html").evaluate("html => html.scrollWidth") <= width
    for selector in (".actions button:not([hidden])", ".figures dt", ".figures dd", ".about > *"):
        for card in page.locator(".card").all():
            boxes = [box for each in card.locator(selector).all() if (box := each.bounding_box())]
            middles = [box["y"] + box["height"] / 2 for box in boxes]
            assert max(middles) - min(middles) < 4, selector
            assert max(box["x"] + box["width"] for box in boxes) <= width, selector


def test_nobody_is_shut_out_in_light_or_dark(page: Page, server: Server) -> None:
    assert violations(page) == [], "empty"
    server.client.post("/api/v1/streams", json={"source": DRIVE, "id": "front"})
    see(page.locator("canvas[data-shown]").first).to_be_visible(timeout=LONG)
    see(page.locator("#detail")).to_be_visible(timeout=LONG)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]  # a literal
        assert violations(page) == [], theme
        page.get_by_role("button", name="Add stream").click()
        assert violations(page) == [], f"{theme}, dialog"
        page.keyboard.press("Escape")
    # The button goes on from the system's theme to light, then dark.
    page.get_by_role("button", name="Theme: as the system").click()
    see(page.locator("html")).to_have_attribute("data-theme", "light")


def test_a_phone_has_it_all_without_scrolling_sideways(page: Page, server: Server) -> None:
    server.client.post("/api/v1/streams", json={"source": DRIVE, "id": "front"})
    page.set_viewport_size({"width": 360, "height": 740})
    see(page.locator("canvas[data-shown]").first).to_be_visible(timeout=LONG)
    assert page.locator("html").evaluate("html => html.scrollWidth") <= 360
    assert violations(page) == []


def test_the_reference_lists_every_call(page: Page, server: Server) -> None:
    page.goto(f"{server.url}docs", timeout=LONG)
    see(page.get_by_text("Add a stream")).to_be_visible(timeout=LONG)
    page.get_by_text("Add a stream").click()
    see(page.get_by_text("curl -X POST").first).to_be_visible()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]  # a literal
        assert violations(page) == [], theme


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_it_works_below_a_sub_path_behind_tls(browser: Browser, segmenter: Path, tmp_path: Path) -> None:
    habits = Habits(adds={"X-Forwarded-Proto": "https"})
    options = {"root_path": habits.prefix, "trusted_proxies": ("127.0.0.1",)}
    with (
        running(segmenter, token=TOKEN, **options) as server,
        proxying(server.url, habits, certificate(tmp_path)) as address,
    ):
        context = browser.new_context(ignore_https_errors=True, reduced_motion="reduce")
        page = context.new_page()
        page.set_default_timeout(LONG)
        page.goto(address, timeout=LONG)
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        see(page.get_by_text("0 streams")).to_be_visible(timeout=LONG)
        page.get_by_role("button", name="Add stream").click()
        page.get_by_label("Source").fill(DRIVE)
        page.keyboard.press("Enter")
        see(page.locator(".card canvas")).to_have_attribute("data-shown", re.compile(r"\d+"), timeout=LONG)
        see(page.locator("#log")).to_contain_text("Added", timeout=LONG)
        page.goto(f"{address}/docs", timeout=LONG)
        page.get_by_text("Add a stream").click()
        see(page.get_by_text(f"curl -X POST {address}/api/v1/streams").first).to_be_visible()
        page.goto(f"{address}/", timeout=LONG)
        page.get_by_role("button", name="Log out").click()
        see(page.get_by_label("Token")).to_be_visible(timeout=LONG)
        context.close()


def test_a_person_logs_in(browser: Browser, segmenter: Path) -> None:
    with running(segmenter, token=TOKEN) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url, timeout=LONG)
        page.get_by_label("Token").fill("not it")
        page.keyboard.press("Enter")
        see(page.get_by_text("That is not the token.")).to_be_visible(timeout=LONG)
        assert violations(page) == []
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        see(page.get_by_text("0 streams")).to_be_visible(timeout=LONG)
        page.get_by_role("button", name="Log out").click()
        see(page.get_by_label("Token")).to_be_visible(timeout=LONG)
        context.close()
