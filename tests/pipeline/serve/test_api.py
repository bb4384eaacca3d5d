from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import cv2
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from engines.errors import OutputError
from pipeline.outputs.event_clip import EventClipOptions
from pipeline.outputs.live.hls import HlsOptions
from pipeline.outputs.live.opening import OutputOptions
from pipeline.session import serving
from pipeline.state import SourceState, StateChange
from tests.pipeline.rtsp_server import free_port
from tests.pipeline.serve.conftest import DRIVE, Server, running

STREAMS = "/api/v1/streams"
LONG = 60.0


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["one process", "two workers"])
def server(request: pytest.FixtureRequest, segmenter: Path) -> Iterator[Server]:
    """A server of several processes answers as one does."""
    with running(segmenter, max_streams=5, settings={"workers": request.param}) as made:
        yield made


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def state(server: Server, stream: str) -> str:
    return str(server.client.get(f"{STREAMS}/{stream}").json()["state"])


def fault(answer: httpx.Response) -> tuple[list[Any], str]:
    assert answer.status_code == 422, answer.text
    (only,) = answer.json()["detail"]
    return only["loc"], only["msg"]


# Probes ---------------------------------------------------------------------------------------------------------------
def test_it_is_ready_once_its_engines_are_there_and_not_when_it_stops(segmenter: Path) -> None:
    with running(segmenter, opened=False) as server:
        get = server.client.get
        assert get("/livez").status_code == 200
        answer = get("/readyz")
        assert (answer.status_code, answer.json()["reason"]) == (503, "the engines are being built or loaded")
        refused = get(STREAMS)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        session = server.service.open()
        assert get("/readyz").json() == {"ready": True, "reason": ""}
        session.close()
        assert get("/livez").status_code == 503, "without its threads it is of no use"
        server.service.close()
        assert get("/readyz").json()["reason"] == "the server is being stopped"


def test_metrics_tell_of_streams_and_engines(server: Server, stream: str) -> None:
    until(lambda: state(server, stream) == "streaming")
    text = server.client.get("/metrics").text
    assert 'roadlens_stream_state{state="streaming",stream="drive"} 1.0' in text
    assert 'roadlens_engine_state{model="bits",state="ready"} 1.0' in text


# Streams --------------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
def test_a_stream_is_added_paused_resumed_restarted_and_removed(server: Server) -> None:
    post = server.client.post
    made = post(STREAMS, json={"source": DRIVE, "id": "cam.1"})
    assert (made.status_code, made.headers["location"]) == (201, f"{STREAMS}/cam.1")
    assert (made.json()["width"], made.json()["height"], made.json()["mode"]) == (320, 180, "file")
    until(lambda: server.client.get(f"{STREAMS}/cam.1").json()["frames_out"] > 3)
    assert post(f"{STREAMS}/cam.1/pause").json()["paused"]
    until(lambda: state(server, "cam.1") == "paused")
    post(f"{STREAMS}/cam.1/resume")
    until(lambda: state(server, "cam.1") == "streaming")
    post(f"{STREAMS}/cam.1/restart")
    until(lambda: state(server, "cam.1") == "streaming")
    changed = server.client.patch(f"{STREAMS}/cam.1", json={"source": "synthetic:?seconds=1&width=160&height=90"})
    assert changed.json()["width"] == 160
    until(lambda: state(server, "cam.1") == "ended")
    assert post(f"{STREAMS}/cam.1/pause").status_code == 409
    assert server.client.delete(f"{STREAMS}/cam.1").status_code == 204
    assert server.client.get(f"{STREAMS}/cam.1").status_code == 404
    kinds = [e["kind"] for e in server.client.get("/api/v1/events").json()["events"] if e["stream"] == "cam.1"]
    wanted = iter(kinds)
    assert all(k in wanted for k in ("added", "paused", "streaming", "restarted", "changed", "ended", "removed")), kinds
    totals = server.client.get("/api/v1/stats").json()
    assert totals["frames_in"] >= totals["frames_out"] + sum(totals["dropped"].values())


def test_the_others_go_on_while_one_comes_and_goes(server: Server, stream: str) -> None:
    path = f"{STREAMS}/{stream}"
    for _ in range(3):
        name = server.client.post(STREAMS, json={"source": DRIVE}).json()["id"]
        assert name == "synthetic"
        before = server.client.get(path).json()["frames_out"]
        until(lambda before=before: server.client.get(path).json()["frames_out"] > before)
        server.client.delete(f"{STREAMS}/{name}")
    answer = server.client.get(path).json()
    assert (answer["state"], answer["dropped"]) == ("streaming", {})


@pytest.mark.parametrize(
    ("body", "loc", "said"),
    [
        ({}, ["body", "source"], "source"),
        ({"source": 3}, ["body", "source"], "wanted is text"),
        ({"sorce": "a.mp4"}, ["body", "sorce"], "the nearest is `source`"),
        ({"source": "a.mp4", "decode_threads": 99}, ["body", "decode_threads"], "at most 64"),
        ({"source": "a.mp4", "live": {"transport": "smoke"}}, ["body", "live", "transport"], "tcp, udp"),
        ({"source": "a.mp4", "id": "a b"}, ["body", "id"], "matching"),
        ({"source": "nowhere.mp4"}, ["body", "source"], "a client may give"),
        ({"source": "synthetic:?colour=red"}, ["body", "source"], "unknown key"),
        ({"source": "a\0b"}, ["body", "source"], ""),
        ({"source": "x" * 5000}, ["body", "source"], "a client may give"),
        ({"source": "~nobodyatall/a.mp4"}, ["body", "source"], ""),
        ({"source": DRIVE, "id": "cam\n"}, ["body", "id"], ""),
        ({"source": DRIVE, "id": "../cam"}, ["body", "id"], ""),
        ([1], ["body"], "must be a JSON object"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_told_by_field(server: Server, body: Any, loc: list[Any], said: str) -> None:
    where, sentence = fault(server.client.post(STREAMS, json=body))
    assert where == loc
    assert said in sentence


def test_an_id_is_used_once_and_does_not_change(server: Server, stream: str) -> None:
    where, sentence = fault(server.client.post(STREAMS, json={"source": DRIVE, "id": stream}))
    assert (where, sentence) == (["body", "id"], "the stream id 'drive' is in use; choose another")
    assert fault(server.client.patch(f"{STREAMS}/{stream}", json={"id": "other"}))[0] == ["body", "id"]


@pytest.mark.parametrize(
    "change", [{"source": "nowhere.mp4"}, {"ignore": {"polygons": [[[0, 0], [9999, 0], [0, 9999]]]}}]
)
def test_a_change_that_cannot_be_leaves_the_stream_as_it_was(
    server: Server, stream: str, change: dict[str, Any]
) -> None:
    until(lambda: server.client.get(f"{STREAMS}/{stream}").json()["frames_out"] > 3)
    before = server.client.get(f"{STREAMS}/{stream}").json()["frames_out"]
    assert fault(server.client.patch(f"{STREAMS}/{stream}", json=change))[0] == ["body", "source"]
    until(lambda: server.client.get(f"{STREAMS}/{stream}").json()["frames_out"] > before)


def test_a_change_whose_outputs_cannot_be_opened_brings_the_stream_back(
    segmenter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(segmenter) as server:
        assert server.client.post(STREAMS, json={"source": DRIVE, "id": "drive"}).status_code == 201
        until(lambda: state(server, "drive") == "streaming")
        real, refused = serving.plan, [OutputError("the disk is full")]

        def plan(*given: Any) -> Any:
            if refused:
                raise refused.pop()
            return real(*given)

        monkeypatch.setattr(serving, "plan", plan)
        assert server.client.post(f"{STREAMS}/drive/restart").status_code == 507
        until(lambda: state(server, "drive") == "streaming")


@pytest.mark.seconds
def test_there_are_only_so_many_streams(server: Server) -> None:
    names = [server.client.post(STREAMS, json={"source": DRIVE}).json()["id"] for _ in range(5)]
    refused = server.client.post(STREAMS, json={"source": DRIVE})
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "there are 5 streams, as many as there may be; remove one",
    )
    for name in names:
        assert server.client.delete(f"{STREAMS}/{name}").status_code == 204


def test_credentials_of_a_source_are_never_shown(server: Server) -> None:
    secrets = ("hunter2", "s3cr3tvalue")
    body = {
        "source": "rtsp://admin:hunter2@127.0.0.1:9/live", "id": "secret",
        "live": {"ffmpeg": {"user_agent": "s3cr3tvalue"}, "reconnect": {"at_start": "wait"}},
    }  # fmt: skip
    said = [server.client.post(STREAMS, json=body).text]
    until(lambda: state(server, "secret") in {"backing_off", "failed"})
    for path in (STREAMS, f"{STREAMS}/secret", "/api/v1/events", "/metrics"):
        said.append(server.client.get(path).text)
    assert not [s for s in said for secret in secrets if secret in s]
    assert "rtsp://127.0.0.1:9/live" in said[1]
    server.client.delete(f"{STREAMS}/secret")


# Overlay and areas ----------------------------------------------------------------------------------------------------
def test_the_overlay_changes_with_the_next_frames(server: Server, stream: str) -> None:
    path = f"{STREAMS}/{stream}/overlay"
    style = server.client.patch(path, json={"opacity": 1.0, "outlines": False, "boxes": False}).json()
    assert (style["opacity"], style["outlines"]) == (1.0, False)
    # The test's model has only black classes: at full opacity nothing of the picture is left.
    until(lambda: picture(server, stream).max() < 60)
    server.client.patch(path, json={"opacity": 0.0})
    until(lambda: picture(server, stream).max() > 100)
    assert fault(server.client.patch(path, json={"opacity": 2}))[0] == ["body", "opacity"]
    where, sentence = fault(server.client.patch(path, json={"hide": ["class 1", "clas 2"]}))
    assert where == ["body", "hide", 1]
    assert "the nearest is" in sentence


def test_areas_are_points_over_time(server: Server, stream: str) -> None:
    points = until(lambda: server.client.get(f"{STREAMS}/{stream}/area").json()["points"])
    assert points[0]["number"] == 1
    assert sum(points[0]["area"].values()) == pytest.approx(1, abs=0.01)
    later = server.client.get(f"{STREAMS}/{stream}/area?after={points[-1]['number']}").json()["points"]
    assert all(p["number"] > points[-1]["number"] for p in later)


def test_a_clip_of_a_camera_that_has_not_come_is_refused(segmenter: Path, tmp_path: Path) -> None:
    with running(segmenter, settings={"event_clips": EventClipOptions(tmp_path)}) as server:
        body = {"source": f"tcp://127.0.0.1:{free_port()}", "id": "cam"}
        assert server.client.post(STREAMS, json=body).json()["clips"]
        answer = server.client.post(f"{STREAMS}/cam/clip")
        assert answer.status_code == 409, "no matter of disk space"
        assert answer.json()["detail"] == "stream 'cam' has no pictures yet; save a clip when its camera is there"


# Pictures -------------------------------------------------------------------------------------------------------------
def picture(server: Server, stream: str) -> np.ndarray[Any, Any]:
    answer = server.client.get(f"{STREAMS}/{stream}/snapshot")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    decoded = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (180, 320, 3)
    return decoded


def test_mjpeg_brings_one_picture_after_another(server: Server, stream: str) -> None:
    jpegs: list[bytes] = []
    with server.client.stream("GET", f"{STREAMS}/{stream}/view.mjpeg") as answer:
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        buffer = b""
        for chunk in answer.iter_bytes():
            buffer += chunk
            *whole, buffer = buffer.split(b"--frame\r\n")
            jpegs += [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in whole if part]
            if len(jpegs) >= 3:
                break
    assert all(cv2.imdecode(np.frombuffer(j, np.uint8), cv2.IMREAD_COLOR) is not None for j in jpegs)
    assert len(set(jpegs)) == len(jpegs)
    until(lambda: server.client.get(f"{STREAMS}/{stream}").json()["viewers"] == 0)


@pytest.mark.seconds
def test_a_websocket_sends_a_picture_for_every_one_asked_for(server: Server, stream: str) -> None:
    with connect(f"{server.socket_url}{STREAMS}/{stream}/view") as socket:
        indices = []
        for _ in range(3):
            socket.send("next")
            about = json.loads(socket.recv(LONG))
            jpeg = socket.recv(LONG)
            assert isinstance(jpeg, bytes)
            assert jpeg[:2] == b"\xff\xd8"
            indices.append(about["index"])
            assert about["age_ms"] >= 0
        assert indices == sorted(set(indices))
        with pytest.raises(TimeoutError):
            socket.recv(0.3)  # nothing was asked for


def test_a_viewer_is_told_when_its_stream_is_over_or_is_not_there(server: Server) -> None:
    name = server.client.post(STREAMS, json={"source": DRIVE}).json()["id"]
    with connect(f"{server.socket_url}{STREAMS}/{name}/view") as socket:
        socket.send("next")
        socket.recv(LONG)
        server.client.delete(f"{STREAMS}/{name}")
        with pytest.raises(ConnectionClosed) as closed:
            list(iter(lambda: socket.recv(LONG), None))  # what was on its way, and then the end
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
    with connect(f"{server.socket_url}{STREAMS}/{name}/view") as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(LONG)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4404


@pytest.mark.seconds
def test_a_stream_that_is_encoded_is_sent_as_video_and_another_is_not(
    server: Server, stream: str, segmenter: Path, tmp_path: Path
) -> None:
    with running(segmenter, settings={"outputs": OutputOptions(hls=HlsOptions(tmp_path))}) as encoding:
        client = encoding.client
        assert client.post(STREAMS, json={"source": DRIVE, "id": "cam", "realtime": True}).status_code == 201
        until(lambda: client.get(f"{STREAMS}/cam").json()["video"])
        with connect(f"{encoding.socket_url}{STREAMS}/cam/view.mp4") as socket:
            about = json.loads(socket.recv(LONG))
            data = b"".join(part for part in (socket.recv(LONG) for _ in range(8)) if isinstance(part, bytes))
            assert client.get(f"{STREAMS}/cam").json()["viewers"] == 1
        assert about["mime"].startswith('video/mp4; codecs="avc1.')
        with av.open(io.BytesIO(data)) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == 7
        assert (frames[0].width, frames[0].height) == (about["width"], about["height"]) == (320, 180)
        until(lambda: client.get(f"{STREAMS}/cam").json()["viewers"] == 0)
    assert not server.client.get(f"{STREAMS}/{stream}").json()["video"]
    with (
        connect(f"{server.socket_url}{STREAMS}/{stream}/view.mp4") as socket,
        pytest.raises(ConnectionClosed) as closed,
    ):
        socket.recv(LONG)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4404
    assert "is not encoded for any output" in closed.value.rcvd.reason


@pytest.mark.seconds
def test_a_playlist_that_is_replaced_meanwhile_is_sent_whole(segmenter: Path, tmp_path: Path) -> None:
    lists = [b"#EXTM3U\n" + b"# of another length\n" * lines for lines in (1, 9)]
    with running(segmenter, settings={"outputs": OutputOptions(hls=HlsOptions(tmp_path / "hls"))}) as encoding:
        body = {"source": "synthetic:?seconds=0.2&width=160&height=90", "id": "cam"}
        assert encoding.client.post(STREAMS, json=body).status_code == 201
        until(lambda: state(encoding, "cam") == "ended")
        playlist, stop = tmp_path / "hls" / "cam" / "index.m3u8", threading.Event()

        def replace() -> None:
            while not stop.is_set():
                for text in lists:
                    (tmp_path / "next").write_bytes(text)
                    (tmp_path / "next").replace(playlist)

        (tmp_path / "next").write_bytes(lists[0])
        (tmp_path / "next").replace(playlist)
        threading.Thread(target=replace, daemon=True).start()
        try:
            for _ in range(60):
                answer = encoding.client.get(f"{STREAMS}/cam/hls/index.m3u8")
                assert answer.status_code == 200
                assert answer.content in lists
        finally:
            stop.set()


# Events ---------------------------------------------------------------------------------------------------------------
def test_events_come_as_they_happen_and_again_from_where_one_was(server: Server) -> None:
    server.service.events.changed(StateChange("told of", SourceState.STALLED, "no frame for 5 s", "silent", at=1.5))
    # The server's own streams may begin, end and be removed at any time.
    [last] = [event for event in server.client.get("/api/v1/events").json()["events"] if event["stream"] == "told of"]
    assert (last["kind"], last["cause"], last["at"]) == ("stalled", "silent", 1.5)
    headers = {"last-event-id": str(last["number"] - 1)}
    with server.client.stream("GET", "/api/v1/events/stream", headers=headers) as answer:
        events = (json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:"))
        assert next(events) == last
        server.service.events.add("told of", "streaming")
        assert next(event for event in events if event["stream"] == "told of")["kind"] == "streaming"


def test_a_client_of_an_earlier_server_hears_and_sees_the_next_one(server: Server, stream: str) -> None:
    """A page that stays open while the server is started again asks for what follows numbers of the one before."""
    server.service.events.add("cam", "streaming")
    with server.client.stream("GET", "/api/v1/events/stream", headers={"last-event-id": "1000000"}) as answer:
        assert next(line for line in answer.iter_lines() if line.startswith("data:"))
    assert server.client.get("/api/v1/events", params={"after": 1_000_000}).json()["events"]
    until(lambda: server.client.get(f"{STREAMS}/{stream}/area", params={"after": 1_000_000}).json()["points"])


# Document -------------------------------------------------------------------------------------------------------------
def test_the_openapi_document_has_every_call_and_the_configuration_s_own_types(server: Server) -> None:
    document = server.client.get("/api/v1/openapi.json").json()
    assert {STREAMS, f"{STREAMS}/{{stream}}", "/livez", "/readyz", "/metrics"} <= set(document["paths"])
    schemas = document["components"]["schemas"]
    assert schemas["StreamConfig"]["required"] == ["source"]
    assert schemas["StreamConfig"]["properties"]["decode_threads"]["maximum"] == 64
    body = document["paths"][STREAMS]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/StreamConfig"}
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= set(schemas), "every reference leads somewhere"


@pytest.mark.parametrize("path", ["/", "/docs", "/assets/app.js", "/assets/app.css"])
def test_pages_take_nothing_from_elsewhere(server: Server, path: str) -> None:
    answer = server.client.get(path)
    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert not re.search(r"""(?:src|href|url|import|from)\s*[=(]?\s*["']?https?://""", answer.text)


# Fuzz -----------------------------------------------------------------------------------------------------------------
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
addresses = ["nowhere.mp4", "-x", "http://", "rtsp://\0", "v4l2:", "synthetic:?seconds=x", "~", "["]
bodies = anything | st.fixed_dictionaries(
    {},
    optional={
        "source": st.sampled_from(addresses) | anything,
        "id": anything, "live": anything, "rate": anything, "opacity": anything, "hide": anything, "realtime": anything,
    },
)  # fmt: skip
names = st.sampled_from(["drive", "%00", "..", "a b", "🚗", "x" * 300]) | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=10
)


@pytest.mark.seconds
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"]),
    st.sampled_from(["", "/overlay", "/pause", "/resume", "/area", "/snapshot", "/clip", "/nowhere"]),
    names,
    bodies | st.binary(max_size=200),
)
def test_nothing_that_is_sent_is_an_error_of_the_server_s(
    server: Server, stream: str, method: str, tail: str, name: str, body: Any
) -> None:
    if (method, tail, name) == ("DELETE", "", stream):
        return
    path = STREAMS if method == "POST" and not tail else f"{STREAMS}/{quote(name, safe='')}{tail}"
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if isinstance(body, dict) and body.get("source") == "~":
        return  # the home folder, which may hold anything
    answer = server.client.request(method, path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code < 500 or answer.status_code in {503, 507}, answer.text
    if answer.status_code == 201:
        assert server.client.delete(answer.headers["location"]).status_code == 204


def test_a_body_is_json_and_of_a_bounded_size(server: Server) -> None:
    post = server.client.post
    assert post(STREAMS, content=b"source=a", headers={"content-type": "text/plain"}).status_code == 415
    assert fault(post(STREAMS, content=b"{", headers={"content-type": "application/json"}))[0] == ["body"]
    assert fault(post(STREAMS, content=b"[" * 60000, headers={"content-type": "application/json"}))[0] == ["body"]
    assert post(STREAMS, content=b" " * 70000).status_code == 413
    assert post(STREAMS, content=iter([b" " * 40000] * 3)).status_code == 413
