"""The page: one file, everything on it, nothing from elsewhere, nothing that its subject could smuggle in."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ovit_deploy.errors import RunError
from ovit_deploy.report.contestants import contestants
from ovit_deploy.report.gather import gather
from ovit_deploy.report.html import html
from ovit_deploy.report.markdown import markdown
from ovit_deploy.report.sections import sections

SECTIONS = [
    "Runs",
    "Accuracy against latency",
    "Sparsity per layer",
    "Schedule",
    "Prunings",
    "Evidence",
    "Environment",
    "Reproduce",
]
HOSTILE = "<script>alert('x')</script> & \"y\" |`z`"
SVG = "{http://www.w3.org/2000/svg}"


def page(*folders: Path) -> str:
    found = gather(folders)
    return html(found.title, found.created, sections(found))


def words(element: ElementTree.Element | None) -> str:
    assert element is not None
    return " ".join(" ".join(element.itertext()).split())


def section(text: str, anchor: str) -> ElementTree.Element:
    found = ElementTree.fromstring(text).find(f".//section[@id='{anchor}']")
    assert found is not None
    return found


def test_the_page_has_every_section_and_a_link_to_it(make) -> None:
    root = ElementTree.fromstring(page(make()))
    assert [words(heading) for heading in root.iter("h2")] == SECTIONS
    links = [link.attrib["href"] for link in root.iter("a")]
    assert links == [f"#{part.attrib['id']}" for part in root.iter("section")]


def test_the_page_needs_no_other_file(make) -> None:
    text = page(make("one"), make("two"))
    assert set(re.findall(r"https?://[^\"'\s<]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script|<link|<img|<iframe|\ssrc=|@import|url\(", text)


def test_a_picture_for_accuracy_sparsity_schedule_training_and_prunings(make) -> None:
    text = page(make())
    count = {name: len(section(text, name).findall(f".//figure/{SVG}svg")) for name in ("schedule", "prunings")}
    assert count == {"schedule": 2, "prunings": 1}
    marks = section(text, "accuracy-against-latency").findall(f".//figure//{SVG}path[{SVG}title]")
    assert [words(mark).split(":")[0] for mark in marks] == [
        "A, onnxruntime, dense twin",
        "A, deepsparse, dense twin",
        "A, onnxruntime, 75% zeros",
        "A, deepsparse, 75% zeros",
    ]
    assert len(section(text, "sparsity-per-layer").findall(f".//{SVG}rect[@class='track']")) == 16


def test_figures_are_those_of_the_files(make) -> None:
    text = page(make())
    assert "90.00 88.61 to 91.24" in words(section(text, "runs"))
    assert "0.65x (0.63 to 0.68)" in words(section(text, "accuracy-against-latency"))
    assert "OViT 2 71.88% +2.1e-05 +0.0018 24.6" in words(section(text, "prunings"))
    assert "supported_operators: 0.9953" in words(section(text, "evidence"))
    assert "AMD EPYC" in words(section(text, "environment"))


def test_words_of_the_files_stay_words(make) -> None:
    facts = {
        "model": {"name": HOSTILE, "kwargs": {}, "parameters": 1},
        "data": HOSTILE,
        "recipe": HOSTILE,
        "sparsity": {"prunable": 0.5, "all": 0.5, "layers": {HOSTILE: 0.5}},
        "versions": {HOSTILE: HOSTILE},
    }
    row = {"engine": HOSTILE, "model": HOSTILE, "weights": HOSTILE, "error": HOSTILE, "about": {HOSTILE: [HOSTILE]}}
    folders = [make("one", row=row, **facts), make("two", row=row, **facts)]
    for text in (page(*folders), page(folders[0])):
        root = ElementTree.fromstring(text)
        assert not list(root.iter("script")) + list(root.iter(f"{SVG}script"))
        assert words(root).count(HOSTILE) >= 12


def test_markdown_has_the_same_sections_and_no_html(make) -> None:
    found = gather([make(data=HOSTILE, model={"name": HOSTILE, "kwargs": {}, "parameters": 1})])
    text = markdown(found.title, found.created, sections(found))
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    outside = re.sub(r"(`+).*?\1", "", text, flags=re.DOTALL)
    assert "<script>" not in outside
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) > 6
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_what_is_missing_is_named_with_its_command(make) -> None:
    folder = make()
    (folder / "bench.json").unlink()
    (folder / "metrics.jsonl").unlink()
    told = words(section(page(folder), "runs"))
    assert "no latencies: it was not measured on any engine (bench.json): ovit-deploy bench --run deit_75" in told
    assert "not exported: ovit-deploy export --onnx --run deit_75" in told
    assert "(metrics.jsonl): ovit-deploy prune --recipe deit_75 --name deit_75-again" in told


@pytest.mark.parametrize(("file", "content"), [("bench.json", "{"), ("metrics.jsonl", "{}\n{"), ("bench.json", "[1]")])
def test_a_damaged_file_is_named_and_the_rest_is_shown(make, file: str, content: str) -> None:
    folder = make()
    (folder / file).write_text(content)
    text = page(folder)
    assert f"its {file} cannot be read" in words(section(text, "runs"))
    assert "71.88%" in words(section(text, "prunings"))


def test_a_recipe_of_another_version_costs_the_schedule_only(make) -> None:
    folder = make()
    (folder / "recipe.yaml").write_text("modifiers:\n  - !FutureModifier {start_epoch: 0}\n")
    text = page(folder)
    assert "no schedule" in words(section(text, "runs"))
    assert len(section(text, "accuracy-against-latency").findall(f".//figure/{SVG}svg")) == 1


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a complete run"):
        gather([tmp_path])


def test_fields_that_a_later_bench_adds_are_shown(make) -> None:
    row = {
        "scenario": "offline",
        "processes": 3,
        "evidence": {
            "layers": [{"name": "qkv", "ms": 0.25}, {"name": "fc1", "kernel": "jit"}],
            "pruned_ms": 3.0,
            "rest_ms": 1.0,
            "kernels": {"sparse": 2},
        },
    }
    text = page(make(row=row))
    assert "offline, batch 1, 1 thread" in words(section(text, "accuracy-against-latency"))
    told = words(section(text, "evidence"))
    assert "3 1 75% 4.00x 2 sparse" in told
    assert "layers (2) name ms kernel qkv 0.25 - fc1 - jit" in told


def test_accuracy_through_the_engine_counts_before_the_runs_own(make) -> None:
    own = gather([make("own")])
    engine = gather([make("engine", row={"accuracy": {"top1": 0.5, "interval95": [0.4, 0.6]}})])
    assert {one.accuracy.top1 for one in contestants(own) if one.accuracy and not one.dense} == {0.9}
    assert {one.accuracy.top1 for one in contestants(own) if one.accuracy and one.dense} == {0.893}
    assert {one.accuracy.top1 for one in contestants(engine) if one.accuracy} == {0.5}


def test_a_comparison_with_the_baseline_is_told_beside_the_accuracy(make) -> None:
    compared = {"baseline": "onnxruntime, dense", "only_here": 3, "only_baseline": 9, "p_value": 0.146}
    text = page(make(row={"accuracy": {"top1": 0.5, "interval95": [0.4, 0.6], **compared}}))
    told = "against onnxruntime, dense: 3 images right only here, 9 only there, McNemar p 0.15"
    assert told in words(section(text, "accuracy-against-latency"))


def test_a_profiler_that_failed_and_a_noisy_machine_are_told(make) -> None:
    folder = make(row={"evidence": {"layers": [], "pruned_ms": 0.0, "rest_ms": 0.0, "error": "no profiler"}})
    path = folder / "bench.json"
    noise = {"busy": 0.4, "waited": 0.125, "stolen": None, "reasons": ["a thread waited for a core"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"noise": noise}))
    text = page(folder)
    assert "no profiler" in words(section(text, "evidence"))
    assert "A 40% 12% - - - a thread waited for a core" in words(section(text, "environment"))


def test_int8_without_training_has_no_accuracy_of_the_float_model(make) -> None:
    folder = make()
    (folder / "deployment").mkdir()
    card = {"run": {"post_training": {}}, "profile": {"name": "deepsparse_int8"}, "sparsity": {"all": 0.7}}
    proof = {"num_images": 8, "max_abs_difference": 0.0, "top1_agreement": 1.0}
    (folder / "deployment" / "model.json").write_text(json.dumps(card | {"verification": proof, "sha256": "0"}))
    found = gather([folder])
    assert [one.accuracy for one in contestants(found)] == [None] * 4
    assert "ovit-deploy export --onnx --run deit_75 --profile deepsparse_int8 --quantize int8" in page(folder)


def test_a_run_that_only_trained_has_a_page_too(make) -> None:
    nothing = {"prunable": 0.0, "all": 0.0, "layers": {}}
    folder = make(prunings=[], sparsity=nothing, dense=None, weights="chance")
    (folder / "recipe.yaml").write_text("modifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}\n")
    text = page(folder)
    assert "No layer of these runs is pruned." in words(section(text, "sparsity-per-layer"))
    assert "Nothing was pruned." in words(section(text, "prunings"))
    assert "ovit-deploy train --recipe deit_75.yaml --model vit_tiny_patch16_224" in words(section(text, "reproduce"))


def test_hundreds_of_prunings_are_folded_away(make) -> None:
    line = {"event": "regrow", "method": "RigL", "sparsity": 0.5, "seconds": 1.0}
    losses = {"predicted_loss_increase": None, "measured_loss_increase": None}
    folder = make(prunings=[line | losses | {"epoch": number / 100} for number in range(300)])
    (folded,) = section(page(folder), "prunings").findall("details")
    assert words(folded).startswith("all 300 of them")
    assert "A RigL, regrow 2.99 50.00% - - 1.0" in words(folded)


def test_machines_do_not_share_a_picture(make) -> None:
    one, other = make("one"), make("other")
    bench = json.loads((other / "bench.json").read_text())
    bench["hardware"]["instructions"] = ["avx2"]
    (other / "bench.json").write_text(json.dumps(bench))
    shown = section(page(one, other), "accuracy-against-latency")
    assert len(shown.findall(f".//figure/{SVG}svg")) == len(shown.findall(".//table")) == 2
    assert "B (other): measured beside other work (load 1.3 on 2 cores)" in words(shown)


def test_intervals_hold_their_medians(make) -> None:
    for one in contestants(gather([make()])):
        assert one.interval_ms
        assert one.median_ms
        assert one.interval_ms[0] <= one.median_ms <= one.interval_ms[1]
