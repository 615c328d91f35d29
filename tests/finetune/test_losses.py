import pytest
import timm
import torch
from cases import images_and_labels, tiny_convnet, tiny_vit
from torch.nn import functional as F
from training_cases import trained

from ovit_deploy.errors import RecipeError
from ovit_deploy.finetune.losses import check_distillable, criterion_for, mixing
from ovit_deploy.recipe.modifiers import DistillationModifier
from ovit_deploy.recipe.schema import Augmentation, Training


def distilled_vit() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=10
    )


def test_mixed_labels_are_smoothed_and_shared_as_the_images_are() -> None:
    training = Training(label_smoothing=0.1, augmentation=Augmentation(mixup=0.4))
    mix = mixing(training, 10)
    assert mix is not None
    images = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 2, 2).clone()
    mixed, targets = mix(images.clone(), torch.arange(4))
    share = float(mixed[0, 0, 0, 0]) / -3 + 1  # image 0 is all 0, its partner all 3
    smooth = 0.1 / 10 + 0.9 * F.one_hot(torch.arange(4), 10)
    assert torch.allclose(targets, share * smooth + (1 - share) * smooth.flip(0), atol=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_losses_against_their_formulas(loss) -> None:
    logits, labels = torch.randn(6, 10, dtype=torch.float64), torch.arange(6)
    hard = criterion_for(Training(loss=loss, label_smoothing=0.1))(logits, labels)
    mixed = criterion_for(Training(loss=loss, augmentation=Augmentation(mixup=0.4)))
    smooth = 0.1 / 10 + 0.9 * F.one_hot(labels, 10).double()
    if loss == "cross_entropy":
        expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    else:
        p = logits.sigmoid()
        expected = -(smooth * p.log() + (1 - smooth) * (1 - p).log()).mean()
    assert float(hard) == pytest.approx(float(expected), rel=1e-6)
    assert float(mixed(logits, smooth)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("kind", ["logit", "feature"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(kind) -> None:
    """With hardness 1 the loss is the distance from the teacher alone."""
    text = f"""
  - !DistillationModifier {{kind: {kind}, hardness: 1.0}}
  - !SetLearningRateModifier {{learning_rate: 1e-12}}
"""
    _, steps, _ = trained("", text, epochs=0.25)
    assert all(abs(step.loss) < 1e-5 for step in steps)


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_the_distillation_token_learns_from_the_teacher_then_both_heads_answer(target) -> None:
    text = f"\n  - !DistillationModifier {{kind: token, token_target: {target}, end_epoch: 1}}\n"
    model = distilled_vit()
    before = model.head_dist.weight.detach().clone()
    state, steps, _ = trained("", text, model=model)
    assert steps[-1].step == 16
    assert not torch.equal(model.head_dist.weight, before)
    images, _ = images_and_labels(2)
    assert isinstance(state.model.train()(images), torch.Tensor)


def test_labels_of_an_unknown_number_of_classes_are_not_mixed() -> None:
    with pytest.raises(RecipeError, match="no num_classes"):
        mixing(Training(augmentation=Augmentation(mixup=0.4)), 0)


def test_kinds_of_distillation_that_a_model_has_no_place_for_are_refused() -> None:
    with pytest.raises(RecipeError, match="no distillation token"):
        check_distillable(tiny_vit(), DistillationModifier(kind="token"))
    with pytest.raises(RecipeError, match="does not give its features"):
        check_distillable(tiny_convnet(), DistillationModifier(kind="feature"))
    check_distillable(distilled_vit(), DistillationModifier(kind="token"))
