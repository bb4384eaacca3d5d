"""Settings: what a person may write, and the one sentence each mistake gets."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Annotated, Literal

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import UsageError
from engines.settings import decode, nearest, parse_scalar, read_yaml, schema


class File(msgspec.Struct, forbid_unknown_fields=True, tag="file", tag_field="kind"):
    path: Path
    codec: Literal["h264", "hevc"] = "h264"


class Socket(msgspec.Struct, forbid_unknown_fields=True, tag="socket", tag_field="kind"):
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Stream(msgspec.Struct, forbid_unknown_fields=True):
    uri: str
    every: Annotated[int, msgspec.Meta(ge=1)] = 1
    size: tuple[int, int] = (1280, 720)


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    streams: dict[str, Stream] = {}
    outputs: list[File | Socket] = []
    weights: dict[Literal["road", "car"], float] = {}
    rate: float = 1.0
    overlay: bool = True
    title: str = ""
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.rate > 100:
            raise ValueError("rate is frames per second and cannot be above 100")


def write(folder: Path, text: str) -> Path:
    path = folder / "drive.yaml"
    path.write_text(text)
    return path


def test_a_whole_file_is_read_typed(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        streams:
          front: {uri: rtsp://camera/1, every: 3, size: [960, 540]}
        outputs:
          - {kind: file, path: out.mp4, codec: hevc}
          - {kind: socket, port: 5556}
        rate: 1e1
        overlay: false
        """,
    )
    assert read_yaml(path, Settings) == Settings(
        streams={"front": Stream("rtsp://camera/1", 3, (960, 540))},
        outputs=[File(Path("out.mp4"), "hevc"), Socket(5556)],
        rate=10.0,
        overlay=False,
    )


@pytest.mark.parametrize("text", ["", "\n# only a comment\n", "---\n", "~\n"])
def test_an_empty_file_gives_the_defaults(tmp_path: Path, text: str) -> None:
    assert read_yaml(write(tmp_path, text), Settings) == Settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "rate: 2\nstreams:\n  front:\n    uri: a\n    evry: 2\n",
            "line 5: `streams.front.evry` is not a known key; the nearest is `every` (known keys are uri, every, size)",
        ),
        ("zebra: 1\n", "line 1: `zebra` is not a known key; known keys are streams, outputs,"),
        ("streams:\n  front: {every: 2}\n", "line 2: `streams.front` must have the key `uri`; add it."),
        (
            "streams:\n  back: {uri: b}\n  front:\n    uri: a\n    every: often\n",
            "line 5: `streams.front.every` is 'often'; wanted is a whole number, at least 1.",
        ),
        (
            "streams:\n  a: {uri: x, every: 0}\n",
            "line 2: `streams.a.every` is 0; wanted is a whole number, at least 1.",
        ),
        ("streams:\n  a: {uri: x, size: [1]}\n", "line 2: `streams.a.size` is a list of 1; wanted is a list of 2."),
        ("streams:\n  a: {uri: x, size: [1, b]}\n", "`streams.a.size[1]` is 'b'; wanted is a whole number."),
        ("overlay: yes\n", "line 1: `overlay` is 'yes'; wanted is true or false."),
        ("title:\n", "line 1: `title` is empty; wanted is text."),
        ("title: 3\n", "line 1: `title` is 3; wanted is text."),
        ("rate: fast\n", "line 1: `rate` is 'fast'; wanted is a number."),
        ("outputs: out.mp4\n", "line 1: `outputs` is 'out.mp4'; wanted is a list."),
        ("folder: 3\n", "line 1: `folder`: wanted is a path, given is 3."),
        (
            "outputs:\n- {kind: file, path: a}\n- {kind: socet, port: 1}\n",
            "line 3: `outputs[1].kind` is 'socet'; the nearest is `socket` (known values are file, socket).",
        ),
        ("outputs:\n- {path: a}\n", "line 2: `outputs[0]` must have the key `kind`; add it."),
        ("outputs:\n- {kind: socket, prot: 1}\n", "`outputs[0].prot` is not a known key; the nearest is `port`"),
        (
            "outputs:\n- {kind: socket, port: 70000}\n",
            "is 70000; wanted is a whole number, at least 1 and at most 65535.",
        ),
        ("outputs:\n- {kind: file, path: a, codec: h265}\n", "`outputs[0].codec` is 'h265'; the nearest is `h264`"),
        ("weights: {raod: 1}\n", "`weights.raod` is not a key that can stand there; the nearest is `road`"),
        ("weights:\n  road: 1\n  car: heavy\n", "line 3: `weights.car` is 'heavy'; wanted is a number."),
        ("rate: 200\n", "rate is frames per second and cannot be above 100."),
        ("- a\n- b\n", "line 1: the whole is a list of 2; wanted is a mapping of keys to values."),
        ("rate: 1\nrate: 2\n", "line 2: the key `rate` is given twice"),
        ("streams: {a: [}\n", "line 1: "),
        ("rate: 1\n\ttitle: x\n", "line 2: "),
        ("title: !!python/object:os.system x\n", "line 1: "),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        read_yaml(path, Settings)
    message = str(raised.value)
    assert message.startswith(f"{path}")
    assert sentence in message
    assert "\n" not in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*absent\.yaml"):
        read_yaml(tmp_path / "absent.yaml", Settings)
    with pytest.raises(UsageError, match="cannot be read"):
        read_yaml(tmp_path, Settings)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\x00\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_yaml(binary, Settings)
    binary.write_bytes(b"a: \x00")
    with pytest.raises(UsageError, match="not YAML"):
        read_yaml(binary, Settings)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("true", True),
        ("12:30", "12:30"),
        ("2024-01-02", "2024-01-02"),
        ("010", 10),
        ("0o10", 8),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("3", 3),
        ("null", None),
        ("", None),
        ("[1, 2]", [1, 2]),
        ("{a: 1}", {"a": 1}),
        ("rtsp://camera:554/1", "rtsp://camera:554/1"),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    assert parse_scalar(text) == value


def test_a_scalar_that_is_not_yaml() -> None:
    with pytest.raises(UsageError, match="quote"):
        parse_scalar("[1,")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 200 + "]" * 200, "deeper than 50"),
        ("".join(f"{' ' * depth}a:\n" for depth in range(200)), "deeper than 50"),
        ("a: &a [*a]", "contains itself"),
        ("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
         + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
         "more than 1000000 values"),
        ("a: !!python/object/apply:os.system [id]", "is none that settings have"),
        ("a: !!set {b, c}", "is none that settings have"),
        ("a: !!timestamp x", "is none that settings have"),
        ("a: !!binary aGk=", "is none that settings have"),
        ("a: !!omap [b: 1]", "is none that settings have"),
        ("a: !mine b", "is none that settings have"),
        ("a: !!bool x", "is not YAML"),
        ("a: !!int x", "is not YAML"),
        ("!!map 3", "is not YAML"),
    ],
)  # fmt: skip
def test_deep_endless_and_odd_documents_are_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_yaml(path, dict)


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(UsageError, match="more than 16 MB"):
        read_yaml("/dev/zero", dict)


def test_merge_keys_and_anchors_work(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "streams:\n  a: &a {uri: x, every: 2}\n  b: {<<: *a, uri: y}\n",
    )
    assert read_yaml(path, Settings).streams["b"] == Stream("y", 2)


def test_overrides_say_where_they_come_from() -> None:
    assert decode({"uri": "x"}, Stream, "--set streams.a") == Stream("x")
    with pytest.raises(UsageError, match=r"^--set every: the whole is 'x'; wanted is a whole number\.$"):
        decode("x", int, "--set every")


def test_the_schema_accepts_what_is_read_and_refuses_what_is_not() -> None:
    made = schema(Settings)
    jsonschema.Draft202012Validator.check_schema(made)
    jsonschema.validate({"outputs": [{"kind": "file", "path": "a"}], "folder": "b"}, made)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"outptus": []}, made)


@pytest.mark.parametrize(("word", "found"), [("Vidoe", "video"), ("VIDEO", "video"), ("xyz", None)])
def test_nearest(word: str, found: str | None) -> None:
    assert nearest(word, ["audio", "video"]) == found


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"]), max_size=8)
_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
)
_KEYS = st.sampled_from(["streams", "outputs", "weights", "rate", "kind", "uri", "port", "car"]) | _TEXT
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(_TREES)
def test_anything_is_either_read_or_one_sentence(tree: object) -> None:
    with contextlib.suppress(UsageError):
        decode(tree, Settings, "here")


@given(_TREES)
def test_json_is_yaml(tree: object) -> None:
    """YAML 1.2 contains JSON, so an independent writer's text is read back as the value it came from."""
    document = json.dumps(tree, ensure_ascii=False)
    assert parse_scalar(document) == tree
