"""What a model file says about itself, and that it is refused where the graph says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from onnx import TensorProto

from engines.classes import ClassInfo
from engines.errors import ModelError
from engines.spec import SPEC_KEY, ModelSpec, embed_spec, read_spec
from tests.engines.tiny_models import LOCALIZER, SEGMENTER, bits_model, corners_model, save


@pytest.mark.parametrize(("build", "spec"), [(bits_model, SEGMENTER), (corners_model, LOCALIZER)])
def test_what_is_embedded_is_read_back(tmp_path: Path, build: Callable[[], onnx.ModelProto], spec: ModelSpec) -> None:
    path = save(build(), spec, tmp_path / "model.onnx")
    assert read_spec(path) == spec
    assert read_spec(str(path)) == spec


def test_embedding_again_replaces_and_keeps_other_properties(tmp_path: Path) -> None:
    model = bits_model()
    model.metadata_props.add(key="origin", value="hand-made")
    embed_spec(model, SEGMENTER)
    embed_spec(model, msgspec.structs.replace(SEGMENTER, version="2"))
    assert [prop.key for prop in model.metadata_props] == ["origin", SPEC_KEY]
    onnx.save(model, tmp_path / "m.onnx")
    assert read_spec(tmp_path / "m.onnx").version == "2"


def test_weights_listed_as_inputs_are_not_inputs(tmp_path: Path) -> None:
    """Exporters of ONNX IR 3 list every weight among the graph's inputs."""
    model = bits_model()
    half = next(w for w in model.graph.initializer if w.name == "half")
    model.graph.input.append(onnx.helper.make_tensor_value_info("half", half.data_type, half.dims))
    assert read_spec(save(model, SEGMENTER, tmp_path / "m.onnx")) == SEGMENTER


def input_kind(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def input_layout(model: onnx.ModelProto) -> None:
    for size, value in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], (3, 16, 32), strict=True):
        size.dim_value = value


def static_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])
    model.graph.input[1].name = "other"


def output_kind(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64


def output_size(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 16


def nothing(_: onnx.ModelProto) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "changes", "sentence"),
    [
        (input_kind, {}, "its input is float ?×16×32×3 where uint8 N×16×32×3 with N dynamic is wanted"),
        (input_layout, {}, "its input is uint8 ?×3×16×32 where"),
        (static_batch, {}, "its input is uint8 1×16×32×3 where"),
        (two_inputs, {}, "it has 2 inputs where one"),
        (nothing, {"height": 32}, "its input is uint8 ?×16×32×3 where uint8 N×32×32×3"),
        (
            nothing,
            {"outputs": {"class_map": "mpa"}},
            "it has no output `mpa` for `class_map` (its outputs are map, sure)",
        ),
        (nothing, {"outputs": {"confidence": "sure"}}, "a model for segmentation must have the output `class_map`"),
        (nothing, {"outputs": {"class_map": "map", "boxes": "sure"}}, "a model for segmentation has no output `boxes`"),
        (nothing, {"task": "localization"}, "a model for localization must have the output `boxes`"),
        (
            nothing,
            {"task": "localization", "outputs": {"boxes": "map", "scores": "sure"}},
            "its output `map` is uint8 ?×16×32 where float N×K×4 is wanted for `boxes`",
        ),
        (output_kind, {}, "its output `map` is int64 ?×16×32 where uint8 N×16×32 is wanted for `class_map`"),
        (output_size, {}, "its output `map` is uint8 ?×16×16 where"),
        (nothing, {"classes": (ClassInfo(1, "a", (0, 0, 0)), ClassInfo(1, "b", (0, 0, 0)))}, "class ids"),
        (nothing, {"classes": (ClassInfo(255, "a", (0, 0, 0)),)}, "class ids"),
    ],
)
def test_a_spec_that_does_not_match_is_neither_written_nor_read(
    tmp_path: Path, spoil: Callable[[onnx.ModelProto], None], changes: dict[str, Any], sentence: str
) -> None:
    model, spec = bits_model(), msgspec.structs.replace(SEGMENTER, **changes)
    spoil(model)
    with pytest.raises(ModelError) as raised:
        embed_spec(model, spec)
    assert sentence in str(raised.value)
    assert not model.metadata_props

    model.metadata_props.add(key=SPEC_KEY, value=msgspec.json.encode(spec).decode())
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as raised:
        read_spec(tmp_path / "m.onnx")
    assert sentence in str(raised.value)
    assert str(tmp_path / "m.onnx") in str(raised.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not an ONNX file"),
        (b"not a model at all", "is not an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "is not an ONNX file"),
        (bits_model().SerializeToString()[:300], "is not an ONNX file"),
        (bits_model().SerializeToString(), "is ONNX without a roadlens spec"),
    ],
)
@pytest.mark.parametrize("name", ["m.onnx", "m.json", "m.txt"])
def test_files_that_are_no_models_of_the_house(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError) as raised:
        read_spec(path)
    assert sentence in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ('{"name": "x"}', "missing required field"),
        ('{"schema": 4, "name": "x", "depth": 3}', "has a spec of schema 4, this roadlens reads up to 3"),
    ],
)
def test_specs_that_cannot_be_read(tmp_path: Path, text: str, sentence: str) -> None:
    model = bits_model()
    model.metadata_props.add(key=SPEC_KEY, value=text)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=sentence):
        read_spec(tmp_path / "m.onnx")


def test_a_spec_that_is_no_text_cannot_be_read(tmp_path: Path) -> None:
    model = bits_model()
    model.metadata_props.add(key=SPEC_KEY, value='{"name": "stand-in"}')
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString().replace(b"stand-in", b"stand\xffin"))
    with pytest.raises(ModelError, match=r"m\.onnx"):
        read_spec(tmp_path / "m.onnx")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file .*absent\.onnx"):
        read_spec(tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        read_spec(tmp_path)


@pytest.mark.parametrize(
    ("role", "build", "spec"), [("boxes", bits_model, SEGMENTER), ("class_map", corners_model, LOCALIZER)]
)
def test_a_model_of_road_users_has_class_map_boxes_and_labels(
    role: str, build: Callable[[], onnx.ModelProto], spec: ModelSpec
) -> None:
    with pytest.raises(ModelError, match=f"must have the output `{role}`"):
        embed_spec(build(), msgspec.structs.replace(spec, task="road-users"))
    without = {role: f"the {role}" for role in ("class_map", "boxes", "scores")}
    with pytest.raises(ModelError, match="must have the output `labels`"):
        embed_spec(build(), msgspec.structs.replace(spec, task="road-users", outputs=without))
