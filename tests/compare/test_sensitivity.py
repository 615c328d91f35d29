import dataclasses
import json
from xml.etree import ElementTree

import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_vit

from ovit_deploy.compare.sensitivity import sensitivity
from ovit_deploy.compare.subject import Subject
from ovit_deploy.drawing import heatmap
from ovit_deploy.errors import OvitError
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.pruning import OViT, apply

METHOD = OViT(block_size=32, num_grads=40, damping=1e-6)


@pytest.fixture
def subject() -> Subject:
    model, calibration = tiny_vit(), tiny_calibration()
    loss = evaluate(model, calibration.batches()).loss
    return Subject(model, full_masks(model), calibration, loss, None, {})


def test_a_point_is_what_oviT_does_to_that_layer_alone(subject) -> None:  # noqa: N802
    points = sensitivity(subject, METHOD, [0.5, 0.9], measure=True)
    assert [point.layer for point in points[::2]] == list(subject.masks)
    for point in points[:4]:
        only = {point.layer: subject.masks[point.layer]}
        pruned = METHOD.prune(subject.model, only, sparsity=point.sparsity, calibration=subject.calibration)
        assert point.predicted_loss == pytest.approx(pruned.predicted_loss, rel=1e-3)
        assert point.zeros == round(point.sparsity * point.weights)
        model = tiny_vit()
        apply(model, pruned)
        found = evaluate(model, subject.calibration.batches())
        assert point.measured_loss == pytest.approx(found.loss - subject.loss, abs=1e-5)
        assert point.top1 == found.accuracy.top1


def test_predictions_of_streamed_blocks_are_the_same(subject) -> None:
    expected = sensitivity(subject, METHOD, [0.75])
    small = dataclasses.replace(METHOD, memory_budget=2_000_000)
    streamed = sensitivity(subject, small, [0.75], measure=True)
    assert [p.predicted_loss for p in streamed] == pytest.approx([p.predicted_loss for p in expected], rel=1e-4)
    kept = sensitivity(subject, METHOD, [0.75], measure=True)
    assert [p.measured_loss for p in streamed] == pytest.approx([p.measured_loss for p in kept], abs=1e-5)


def test_more_zeros_never_cost_less(subject) -> None:
    points = sensitivity(subject, METHOD, [0.25, 0.5, 0.75, 0.9])
    for name in subject.masks:
        losses = [point.predicted_loss for point in points if point.layer == name]
        assert losses == sorted(losses)


def test_the_model_is_left_as_it_was(subject) -> None:
    sensitivity(subject, METHOD, [0.5], measure=True)
    for name, parameter in tiny_vit().named_parameters():
        assert torch.equal(parameter, subject.model.get_parameter(name))


def test_the_command_writes_numbers_and_a_picture(ovit, workplace, capsys) -> None:
    ovit("sensitivity", "--sparsities", "0.5,0.9", "--num-grads", "40", "--measure", "--out", "sensitive")
    told = json.loads((workplace / "sensitive/results.json").read_text())
    assert len(told["points"]) == 2 * 8
    assert {"predicted_loss", "measured_loss", "top1", "interval95"} <= told["points"][0].keys()
    assert str(workplace) not in json.dumps(told)
    drawn = ElementTree.parse(workplace / "sensitive/heatmap.svg").getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}rect")) == 2 * 8
    assert "blocks.1.mlp.fc2.weight" in capsys.readouterr().out


def test_a_mistake_is_told_before_anything_is_written(ovit, workplace) -> None:
    with pytest.raises(OvitError, match="no sparsity"):
        ovit("sensitivity", "--sparsities", "none", "--out", "mistaken")
    assert not (workplace / "mistaken").exists()


def test_the_heatmap_is_darkest_where_most_is_lost() -> None:
    drawn = heatmap.figure({"first": [1e-6, 1e-3], "<second>": [0.0, 1.0]}, ["50 %", "90 %"], "title", "legend")
    boxes = ElementTree.fromstring(drawn).findall("{http://www.w3.org/2000/svg}rect")
    brightness = [sum(map(int, box.attrib["fill"][4:-1].split(","))) for box in boxes]
    assert brightness[0] == brightness[2] > brightness[1] > brightness[3]
