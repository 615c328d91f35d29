import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ovit_deploy.bench import picture
from ovit_deploy.cli import main

RESULTS = Path(__file__).parents[2] / "bench" / "results"
SVG = "{http://www.w3.org/2000/svg}"


def row(engine: str, zeros: float, ms: float | None, *, batch: int = 1, about: str = "") -> dict:
    name = f"deit with random weights{about}"
    latency = {"median_ms": ms} if ms else None
    sizes = {"batch_size": batch, "threads": 1}
    return {"model": name, "engine": engine, "weights": "x", "sparsity": zeros, "latency": latency, **sizes}


def marks(drawn: str) -> list[tuple[str, float]]:
    """Every mark's words, and where it begins across."""
    found = ElementTree.fromstring(drawn).iter(f"{SVG}path")
    named = [(path.find(f"{SVG}title"), path.get("d", "")) for path in found]
    return [(title.text or "", float(d[1:].split(",")[0])) for title, d in named if title is not None]


def test_a_mark_stands_where_its_time_an_image_is_whatever_the_batch() -> None:
    rows = [row("onnxruntime", 0.0, 10.0), row("onnxruntime", 0.75, 5.0)]
    rows += [row("onnxruntime", 0.0, 160.0, batch=16), row("onnxruntime", 0.7501, 80.0, batch=16)]
    found = [(words, place) for words, place in marks(picture.figure({"rows": rows})) if "ms an image" in words]
    assert [words.split(": ")[1] for words, _ in found] == ["10 ms an image", "5 ms an image"] * 2
    assert found[0][1] - found[1][1] == pytest.approx(found[2][1] - found[3][1], abs=0.2)
    assert found[0][1] > found[1][1]
    assert found[2][1] - found[0][1] == pytest.approx(picture.PANEL + picture.GAP, abs=0.2)


def test_lines_are_engines_with_their_precision() -> None:
    assert picture.label(row("onnxruntime", 0.0, 1.0)) == "onnxruntime FP32"
    assert picture.label(row("openvino:precision=bf16", 0.0, 1.0)) == "openvino bf16"
    assert picture.label(row("openvino:precision=bf16,sparse_weights=0.5", 0.0, 1.0, about=" (INT8)")) == (
        "openvino INT8+bf16 sparse_weights=0.5"
    )
    assert picture.label(row("ovit", 0.0, 1.0, about=" (zeros in fours, INT8)")) == "ovit INT8 zeros in fours"


def test_what_failed_has_a_line_and_no_mark() -> None:
    drawn = picture.figure({"rows": [row("onnxruntime", 0.0, 10.0), row("deepsparse", 0.75, None)]})
    assert "deepsparse FP32</text>" in drawn
    assert not [words for words, _ in marks(drawn) if words.startswith("deepsparse")]


@pytest.mark.parametrize("drawn", sorted(RESULTS.glob("*/bench_*.svg")), ids=lambda path: path.stem)
def test_a_committed_picture_is_that_of_the_result_beside_it(drawn: Path) -> None:
    assert drawn.read_text() == picture.figure(json.loads(drawn.with_suffix(".json").read_text()))


def test_bench_draws_it_on_demand(save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["bench", "--model", str(save()), "--iterations", "2", "--plot", "out/b.svg", "--allow-noise"])
    assert left.value.code == 0
    told = [words for words, _ in marks((tmp_path / "out/b.svg").read_text()) if "an image" in words]
    assert len(told) == 2
