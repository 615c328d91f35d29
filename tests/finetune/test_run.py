import json

import pytest
import torch

from ovit_deploy import checkpoint, models
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.data import ImageData, Preprocessing, calibration_batches, load_data
from ovit_deploy.data.sources import ArrayImages
from ovit_deploy.errors import TrainingError
from ovit_deploy.finetune.loop import Progress
from ovit_deploy.finetune.run import Watchers, run
from ovit_deploy.models import Choice
from ovit_deploy.pruning.batch_norm import NUM_IMAGES, batch_norms, recalibrate
from ovit_deploy.recipe.load import parse_recipe

SPEC = ModelSpec(
    "vit_tiny_patch16_224",
    {"img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2},
    (0.286,),
    (0.353,),
)
HEAD = """
training: {batch_size: 32, augmentation: {crop_padding: 2}}
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}
  - !LearningRateFunctionModifier {lr_func: linear, init_lr: 1e-2, final_lr: 1e-4, start_epoch: 0, end_epoch: 3}
"""
OVIT = """
  - !OViTPruningModifier
    params: ["re:blocks.*(attn|mlp).*weight"]
    init_sparsity: 0.5
    final_sparsity: 0.75
    start_epoch: 1
    end_epoch: 2
    update_frequency: 1
    fisher_block_size: 32
    num_grads: 64
  - !DistillationModifier {start_epoch: 1}
"""


@pytest.fixture(scope="module")
def data() -> ImageData:
    whole = load_data()
    train, test = (
        ArrayImages(split.images[:size], torch.tensor(split.labels[:size]).numpy())
        for split, size in ((whole.train, 256), (whole.test, 100))
    )
    return ImageData("few", train, test, whole.classes)


@pytest.fixture(scope="module")
def pruned(data, tmp_path_factory):
    steps: list[Progress] = []
    runs = tmp_path_factory.mktemp("runs")
    finished = run(
        parse_recipe(HEAD + OVIT, source="r.yaml"), Choice(SPEC), data, runs=runs, watchers=Watchers(step=steps.append)
    )
    return finished, steps


def test_a_run_ends_at_exactly_the_asked_sparsity(pruned) -> None:
    finished, _ = pruned
    weights = checkpoint.load_tensors(finished.folder / "model.safetensors")
    masks = checkpoint.load_run(finished.folder).masks()
    zeros = sum(int((weights[name] == 0).sum()) for name in masks)
    total = sum(mask.numel() for mask in masks.values())
    assert zeros == round(0.75 * total)
    assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())
    assert finished.facts["sparsity"]["prunable"] == pytest.approx(0.75, abs=1e-6)


def test_sparsity_grows_at_the_dated_epochs_and_never_falls(pruned) -> None:
    _, steps = pruned
    by_epoch = {step.epoch: step.sparsity for step in steps}
    assert [round(by_epoch[epoch], 4) for epoch in (1.0, 1.125, 2.0, 2.125, 3.0)] == [0, 0.5, 0.5, 0.75, 0.75]


def test_training_lowers_the_loss(pruned) -> None:
    _, steps = pruned
    assert steps[-1].loss < steps[0].loss


def test_a_run_folder_holds_what_it_promises(pruned) -> None:
    finished, _ = pruned
    assert sorted(path.name for path in finished.folder.iterdir()) == [
        "masks.safetensors",
        "metrics.jsonl",
        "model.safetensors",
        "recipe.yaml",
        "run.json",
    ]
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["epoch", "prune", "epoch", "prune", "epoch"]
    assert lines[1]["predicted_loss_increase"] > 0
    facts = json.loads((finished.folder / "run.json").read_text())
    assert facts["versions"]["torch"] and facts["seed"] == 0


def test_the_saved_model_is_the_one_that_was_measured(pruned, data) -> None:
    finished, _ = pruned
    choice = models.choose(None, checkpoint=finished.folder / "model.safetensors", pretrained=False)
    model = models.build(choice)
    from ovit_deploy.data import Preprocessing, eval_loader
    from ovit_deploy.finetune.evaluate import evaluate

    again = evaluate(model, eval_loader(data.test, Preprocessing.of(model)))
    assert again.accuracy.correct == finished.facts["final"]["correct"]


def test_the_same_seed_gives_the_same_weights(data, tmp_path) -> None:
    recipe = parse_recipe(HEAD + OVIT)
    first, second = (run(recipe, Choice(SPEC), data, name=name, runs=tmp_path) for name in ("a", "b"))
    one, two = (checkpoint.load_tensors(finished.folder / "model.safetensors") for finished in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_nothing(data, tmp_path) -> None:
    recipe = parse_recipe(
        HEAD.replace("1e-2", "1.0") + "  - !SetLearningRateModifier {learning_rate: 1.0, start_epoch: 0}\n"
    )
    recipe = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"optimizer": "sgd", "clip_gradient_norm": None})}
    )
    poisoned = tmp_path / "poisoned.safetensors"
    spec = ModelSpec(SPEC.name, SPEC.kwargs | {"num_classes": 10, "in_chans": 1}, SPEC.mean, SPEC.std)
    weights = models.build(Choice(spec)).state_dict()
    weights["head.weight"] = weights["head.weight"].fill_(float("nan"))
    checkpoint.save_tensors(poisoned, weights, spec)
    with pytest.raises(TrainingError, match=r"the loss is nan at epoch 0\.38 \(step 3\), as in the 3 steps before it"):
        run(recipe, models.choose(None, checkpoint=poisoned, pretrained=False), data, runs=tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("tag", ["GMPruningModifier", "GlobalMagnitudePruningModifier"])
def test_magnitude_pruning_in_one_shot_then_zeros_are_held(data, tmp_path, tag) -> None:
    recipe = parse_recipe(
        f"""
modifiers:
  - !EpochRangeModifier {{start_epoch: 0, end_epoch: 1}}
  - !{tag}
    params: __ALL_PRUNABLE__
    init_sparsity: 0.6
    final_sparsity: 0.6
    start_epoch: 1
    end_epoch: 1
    update_frequency: 1
training: {{batch_size: 64}}
"""
    )
    first = run(recipe, Choice(SPEC), data, name="one", runs=tmp_path)
    assert first.facts["sparsity"]["prunable"] == pytest.approx(0.6, abs=1e-4)
    hold = parse_recipe(
        "modifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: 1}\n"
        "  - !ConstantPruningModifier {params: __ALL_PRUNABLE__, start_epoch: 0}\ntraining: {batch_size: 64}\n"
    )
    choice = models.choose(None, checkpoint=first.folder / "model.safetensors", pretrained=False)
    second = run(hold, choice, data, name="two", runs=tmp_path)
    assert second.facts["sparsity"]["prunable"] == pytest.approx(first.facts["sparsity"]["prunable"])


def test_batch_norms_know_the_pruned_network(data, tmp_path) -> None:
    recipe = parse_recipe(
        """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 0}
  - !GlobalMagnitudePruningModifier
    params: ['re:layer.*conv.*weight']
    init_sparsity: 0.75
    final_sparsity: 0.75
    start_epoch: 0
    end_epoch: 0
    update_frequency: 1
training: {batch_size: 64}
"""
    )
    finished = run(recipe, Choice(ModelSpec("test_resnet", {"img_size": 32})), data, name="norms", runs=tmp_path)
    model = models.build(models.choose(None, checkpoint=finished.folder / "model.safetensors", pretrained=False))
    norms = batch_norms(model)
    assert finished.facts["prunings"][0]["details"] == {"batch_norms_recalibrated": len(norms)}
    before = [norm.running_var.clone() for norm in norms]
    batches = calibration_batches(data.train, Preprocessing.of(model), min(NUM_IMAGES, len(data.train)), seed=0)
    assert recalibrate(model, batches()) == len(norms)
    for norm, variance in zip(norms, before, strict=True):
        torch.testing.assert_close(norm.running_var, variance)
