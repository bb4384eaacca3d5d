"""The report: what it computes, and the page as a browser and a reader get it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engines.bundled import int8_file, resolve
from engines.classes import CITYSCAPES_CLASSES
from engines.errors import ModelError, OutputError, RoadlensError, SourceError, UsageError
from tests.engines.tiny_models import LOCALIZER, corners_model, save
from tests.training.test_cli import call
from training.catalogue import read_recipe
from training.metrics.segmentation import SegmentationEvaluation
from training.models import build_model
from training.report import BEGIN, END, insert_table, measure, table, write_page
from training.report.charts import Line, Mark, axis, line_chart, scatter_chart
from training.report.runs import read_run
from training.report.scores import ScoresSection
from training.report.section import Section
from training.report.segmentation import SegmentationSection, frequent_mistakes, pick_pictures, picture_scores
from training.report.subject import count_parameters, open_subjects
from training.results import Interval

# Charts -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=20), st.integers(2, 8))
@settings(max_examples=200, deadline=None)
def test_an_axis_covers_its_values_in_even_steps(values: list[float], count: int) -> None:
    found = axis(values, count)
    slack = 1e-6 * max(map(abs, values), default=1) + 1e-9
    assert found.low <= min(values) + slack
    assert found.high >= max(values) - slack
    assert 2 <= len(found.ticks) <= 3 * count + 2
    steps = np.diff(found.ticks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)


def svg_of(text: str) -> ET.Element:
    """The chart as an XML reader sees it: it must be well-formed."""
    return ET.fromstring(text)


def test_a_line_chart_says_what_it_shows_and_breaks_where_a_value_is_missing() -> None:
    line = Line("a <b> & c", 0, [(0, 0.0), (1, 0.5), (2, float("nan")), (3, 1.0), (4, 0.5)], dots=True)
    chart = svg_of(
        line_chart([line], axis([0, 4]), axis([0, 1]), title="t", description="d", x_label="step")
    )  # fmt: skip
    assert [chart.find("title").text, chart.find("desc").text] == ["t", "d"]
    path = next(p.get("d") for p in chart.iter("path") if p.get("class") == "line c0")
    assert path.count("M") == 2, "a new line begins behind the gap"
    dots = list(chart.iter("circle"))
    assert len(dots) == 4
    assert dots[0].find("title").text == "a <b> & c, 0: 0.000"
    assert float(dots[0].get("cy")) > float(dots[1].get("cy")) > float(dots[2].get("cy")), "upwards is more"


def test_a_scatter_chart_draws_each_interval_around_its_dot() -> None:
    marks = [Mark("m bf16", "bf16", 0, 8, 0.48, 0.46, 0.50), Mark("m fp32", "fp32", 0, 13, 0.47, 0.45, 0.49)]
    chart = svg_of(
        scatter_chart(marks, axis([0, 13]), axis([0.45, 0.5]), title="t", description="d", x_label="ms")
    )  # fmt: skip
    whiskers = [p.get("d") for p in chart.iter("path") if p.get("class") == "whisker c0"]
    for whisker, dot in zip(whiskers, chart.iter("circle"), strict=True):
        top, bottom = (float(y) for y in re.match(r"M[\d.]+ ([\d.]+)V([\d.]+)", whisker).groups())
        assert top < float(dot.get("cy")) < bottom


# Runs and models ----------------------------------------------------------------------------------------------------


def test_a_run_is_read_back_as_it_was_written(tiny_run: Path) -> None:
    run = read_run(tiny_run)
    lines = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert run.loss == tuple((line["step"], line["loss"]) for line in lines if "loss" in line)
    assert run.scores["mean_iou"][-1] == (2, lines[-1]["dev/mean_iou"])
    assert run.recipe is not None
    assert run.recipe.name == "tiny-unet"
    assert run.images_per_second is not None


def test_half_a_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "lo')
    run = read_run(tmp_path)
    assert run.loss == ((1, 2.5),)
    assert run.recipe is None


@pytest.mark.parametrize("content", [None, "no json\n{}\n", '{"loss": 1}\n{}\n', '[1]\n{"step": 1}\n'])
def test_what_is_not_a_run(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UsageError, match=r"metrics\.jsonl") as caught:
        read_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_parameters_are_those_the_file_computes_with() -> None:
    model = build_model(read_recipe("cityscapes-unet").model, 19)
    # Folding a batch norm (scale and shift) into the convolution before it leaves a bias.
    folded = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert count_parameters(resolve("cityscapes-unet")) == sum(p.numel() for p in model.parameters()) - folded


def test_a_quantised_file_is_counted_through_its_scales() -> None:
    plain = resolve("cityscapes-unet")
    assert count_parameters(int8_file(plain)) == pytest.approx(count_parameters(plain), rel=0.01)


def test_models_that_call_themselves_alike_are_told_apart(tiny_run: Path, tiny_export: Path) -> None:
    checkpoint = str(tiny_run / "last.ckpt")
    first, second = open_subjects([str(tiny_export), checkpoint], {})
    assert (first.label, second.label) == (f"tiny-unet ({tiny_export})", f"tiny-unet ({checkpoint})")
    assert first.run is None
    assert second.run is not None, "the journal beside a checkpoint is found"
    assert not first.bundled


@pytest.mark.parametrize(
    ("models", "runs", "error", "sentence"),
    [
        (["cityscapes-unnet"], {}, ModelError, "the nearest is `cityscapes-unet`"),
        (["cityscapes-unet"] * 2, {}, UsageError, "cityscapes-unet was given twice"),
        (["cityscapes-unet"], {"cityscapes-unnet": "x"}, UsageError, "--run cityscapes-unnet=… .* nearest is citysc"),
        (["cityscapes-unet"], {"cityscapes-unet": "no-such"}, UsageError, "no-such is not the folder of a run"),
        (["none.ckpt"], {}, ModelError, "there is no checkpoint"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(
    models: list[str], runs: dict[str, str], error: type[RoadlensError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence) as caught:
        open_subjects(models, {name: Path(folder) for name, folder in runs.items()})
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_say_its_task_wants_labelled_pictures(tmp_path: Path) -> None:
    path = save(corners_model(), LOCALIZER, tmp_path / "boxes.onnx")
    with pytest.raises(SourceError, match="holds no pictures"):
        measure([str(path)], tmp_path)


# Figures ------------------------------------------------------------------------------------------------------------


def test_a_pictures_score_counts_the_classes_in_its_truth() -> None:
    counts = np.array(
        [
            [[8, 2, 0], [0, 10, 0], [0, 0, 0]],  # 8/10 and 10/12
            [[5, 0, 5], [0, 0, 0], [0, 0, 0]],  # 5/10; what is found but nowhere true counts as lost road only
            [[0, 0, 0]] * 3,  # nothing labelled
        ]
    )
    np.testing.assert_allclose(picture_scores(counts), [(8 / 10 + 10 / 12) / 2, 0.5, np.nan])


@given(st.lists(st.integers(0, 10), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_no_picture_is_among_the_best_and_the_worst(hits: list[int]) -> None:
    counts = np.array([[[h, 10 - h], [0, 0]] for h in hits])
    best, worst = pick_pictures([counts, counts], most=6)
    assert len(best) == len(worst) == min(6, len(hits) // 2)
    assert not set(best) & set(worst)
    rest = [hits[i] for i in range(len(hits)) if i not in {*best, *worst}]
    if best:
        assert min(hits[i] for i in best) >= max([*rest, *(hits[i] for i in worst)])
        assert max(hits[i] for i in worst) <= min([*rest, *(hits[i] for i in best)])
        assert [hits[i] for i in worst] == sorted(hits[i] for i in worst)


def test_the_most_frequent_mistakes_are_shares_of_the_true_class() -> None:
    matrix = np.diag(np.full(19, 100))
    matrix[16, 15], matrix[16, 16] = 60, 40  # 60 of 100 train pixels are found to be bus
    matrix[0, 1] = 10  # 10 of 110 of road
    evaluation = SegmentationEvaluation(
        model="m", backend="b", precision="p", split="val", pictures=1, protocol="", mean_iou=0, accuracy=0,
        mean_iou_interval=Interval(0, 0), accuracy_interval=Interval(0, 0), mean_iou_without_band=0,
        accuracy_without_band=0, classes=(), confusion=matrix.tolist(),
    )  # fmt: skip
    assert frequent_mistakes(evaluation) == [("train", "bus", 0.6), ("road", "sidewalk", pytest.approx(10 / 110))]
    some = np.pad(matrix, ((0, 0), (0, 1)))
    some[3, 19] = 300
    found = msgspec.structs.replace(evaluation, confusion=some.tolist())
    assert frequent_mistakes(found, 2) == [("wall", "none", 0.75), ("train", "bus", 0.6)]


# The page -----------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """A page's tags, checked for balance, its pictures and whatever it refers to."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.references += [v for k, v in attrs if k in ("src", "href", "srcset", "xlink:href") and v is not None]
        if tag == "img":
            self.images.append(values)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # SVG's <path/>

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def sections(tiny_run: Path, tiny_export: Path, pairs_folder: Path) -> list[Section]:
    """An export and a checkpoint of the same tiny network, measured on four pictures."""
    models = [str(tiny_export), str(tiny_run / "last.ckpt")]
    return measure(models, pairs_folder, seconds=0.1, say=lambda _: None)


@pytest.fixture(scope="module")
def page_file(sections: list[Section], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(sections, path)
    return path


def test_the_page_needs_no_other_file_and_shows_every_picture(page_file: Path) -> None:
    text = page_file.read_text()
    page = Page(text)
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    assert "url(" not in text
    assert "@import" not in text
    assert "<script" not in text
    # Two best and two worst of four pictures: photo, truth, two predictions each.
    assert len(page.images) == 4 * 4
    assert all(image.get("alt") for image in page.images)


def test_the_page_says_what_was_measured(page_file: Path, sections: list[Section]) -> None:
    (section,) = sections
    assert isinstance(section, SegmentationSection)
    words = " ".join(" ".join(Page(page_file.read_text()).words).split())
    export, checkpoint = section.models
    assert [v.precision for v in checkpoint.variants] == ["fp32"]
    assert checkpoint.variants[0].row is None
    assert "A checkpoint is no engine" in words
    for model in section.models:
        for variant in model.variants:
            assert f"{variant.backend} {variant.precision}" in words
            assert f"{variant.evaluation.mean_iou:.3f}" in words
    assert export.rival_ms is not None
    assert f"{export.rival_ms:.1f}" in words
    assert all(info.name in words for info in CITYSCAPES_CLASSES)
    assert section.models[0].shown.evaluation.mean_iou == pytest.approx(
        section.models[1].shown.evaluation.mean_iou, abs=0.02
    ), "the same network, exported and not"


def test_the_readme_gets_the_table_and_keeps_the_rest(sections: list[Section], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# x\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    insert_table(sections, readme)
    once = readme.read_text()
    assert once == f"# x\n\nbefore\n\n{BEGIN}\n{table(sections)}{END}\n\nafter\n"
    insert_table(sections, readme)
    assert readme.read_text() == once
    rows = [line for line in once.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert "tiny-unet" in rows[2]


@pytest.mark.parametrize(("pictures", "tables"), [(4, 1), (5, 2)])
def test_a_model_of_another_task_stands_among_the_segmenters_where_it_was_scored_on_the_same_pictures(
    sections: list[Section], tmp_path: Path, pictures: int, tables: int
) -> None:
    (section,) = sections
    assert isinstance(section, SegmentationSection)
    alone, other = section.models
    segmenters = replace(section, models=(alone,))
    users = ScoresSection("Users", "users", (other,), "mean_iou", section.split, pictures, "as it is", (), ())
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    insert_table([users, segmenters], readme)
    text = readme.read_text()
    assert len(re.findall(r"^\|---", text, re.MULTILINE)) == tables
    assert text.count(f"`{other.subject.label}`") == 1
    assert text.count(f"`{alone.subject.label}`") == 1


def test_our_own_readme_has_a_place_for_the_table() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text()
    assert 0 < text.find(BEGIN) < text.find(END)


@pytest.mark.parametrize("content", [None, "# x\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n"])
def test_a_readme_without_a_place_is_left_alone(content: str | None, sections: list[Section], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    if content is not None:
        readme.write_text(content)
    with pytest.raises(OutputError, match=r"README\.md") as caught:
        insert_table(sections, readme)
    assert "\n" not in str(caught.value)
    assert content is None or readme.read_text() == content


def test_a_readme_without_a_place_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"\xff")
    # The folder of data is not there either, which measuring would say.
    with pytest.raises(OutputError, match=r"README\.md cannot be read \(it is not UTF-8 text\)"):
        call("report", "cityscapes-unet", "--data", tmp_path / "none", "--readme", tmp_path / "README.md")


@pytest.mark.parametrize("text", ["x", "=x", "x="])
def test_a_run_is_named_by_model_and_folder(text: str, pairs_folder: Path) -> None:
    with pytest.raises(UsageError, match=rf"--run {text} is not MODEL=DIR"):
        call("report", "cityscapes-unet", "--data", pairs_folder, "--run", text)


@pytest.mark.slow
def test_the_command_writes_the_page_and_prints_the_table(
    tiny_run: Path, pairs_folder: Path, tmp_path: Path
) -> None:  # fmt: skip
    page, model = tmp_path / "r.html", tiny_run / "best.ckpt"
    done = call("report", model, "--data", pairs_folder, "--split", "dev", "--markdown", "-o", page)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("| model |")
    assert "2 pictures of `dev`" in done.stdout
    assert page.exists()
