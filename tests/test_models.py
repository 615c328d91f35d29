import pytest
import torch

from ovit_deploy import checkpoint, models
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.data import Preprocessing
from ovit_deploy.errors import ModelError
from ovit_deploy.models import Choice

TINY = ModelSpec(
    "vit_tiny_patch16_224",
    {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "in_chans": 1, "num_classes": 3},
    (0.3,),
    (0.4,),
    ("a", "b", "c"),
)


@pytest.fixture
def tiny_file(tmp_path):
    path = tmp_path / "tiny.safetensors"
    checkpoint.save_tensors(path, models.build(Choice(TINY)).state_dict(), TINY)
    return path


def choose(name=None, file=None, pretrained=False, **arguments) -> Choice:
    return models.choose(name, checkpoint=file, pretrained=pretrained, **arguments)


def test_without_arguments_the_embedded_model_is_meant_and_says_which_it_is() -> None:
    choice = choose()
    assert choice.weights == models.EMBEDDED
    assert len(choice.spec.classes) == 10


def test_our_checkpoint_rebuilds_its_model(tiny_file) -> None:
    choice = choose(file=tiny_file)
    assert choice.spec == TINY
    model = models.build(choice)
    assert not model.training
    assert torch.equal(model.head.weight, checkpoint.load_tensors(tiny_file)["head.weight"])
    assert Preprocessing.of(model).input_size == (1, 16, 16)
    assert Preprocessing.of(model).mean == (0.3,)


def test_shapes_from_a_file_equal_those_from_timm(tiny_file) -> None:
    from_file, from_timm = models.shapes(choose(file=tiny_file)), models.shapes(Choice(TINY))
    assert from_file == from_timm


def test_an_unknown_model_is_told_its_nearest() -> None:
    with pytest.raises(ModelError) as caught:
        models.build(choose("deit_tiny_patch16_225"))
    assert "deit_tiny_patch16_224" in caught.value.hint


def test_an_unknown_tag_is_told_those_there_are() -> None:
    with pytest.raises(ModelError, match="no weights tagged in9k") as caught:
        models.build(choose("test_vit.in9k"))
    assert "test_vit.r160_in1k" in caught.value.hint


def test_weights_of_another_model_are_refused(tiny_file) -> None:
    with pytest.raises(ModelError, match="not the weights of deit_tiny_patch16_224"):
        models.build(choose("deit_tiny_patch16_224", tiny_file))


def test_a_wrong_class_count_is_refused(tiny_file) -> None:
    choice = models.completed(choose(file=tiny_file), classes=("a", "b"), channels=1)
    with pytest.raises(ModelError, match="tells 3 classes apart, the data have 2"):
        models.build(choice)


def test_a_model_from_chance_takes_classes_and_channels_of_the_data() -> None:
    spec = ModelSpec(
        "vit_tiny_patch16_224", {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    )
    model = models.build(models.completed(Choice(spec), classes=("a", "b"), channels=1))
    assert model(torch.zeros(1, 1, 16, 16)).shape == (1, 2)
    assert len(Preprocessing.of(model).mean) == 1


def test_a_foreign_checkpoint_needs_a_model(tmp_path) -> None:
    path = tmp_path / "foreign.safetensors"
    checkpoint.save_tensors(path, {"x": torch.zeros(1)})
    with pytest.raises(ModelError, match="does not say which model"):
        choose(file=path)


@pytest.mark.parametrize("arguments", [{"pretrained": True}, {"file": "x", "pretrained": True}])
def test_contradicting_sources_are_refused(arguments) -> None:
    with pytest.raises(ModelError):
        choose(**arguments)


def test_a_network_without_a_fixed_image_size_takes_any() -> None:
    model = models.build(Choice(ModelSpec("test_resnet", {"img_size": 32, "num_classes": 2})))
    assert Preprocessing.of(model).input_size == (3, 32, 32)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "module"),
    [("regnety_002", "regnet"), ("vit_small_patch16_224.dino", "vision_transformer"), ("mixer_s32_224", "mlp_mixer")],
)
def test_a_model_is_of_a_module_of_timm(name: str, module: str) -> None:
    assert models.module_of(name) == module


def test_arguments_are_for_a_model_from_chance(tiny_file) -> None:
    arguments = {"img_size": 32, "output_stride": 8}
    choice = choose("resnet10t", arguments=arguments)
    assert choice.spec.kwargs == arguments
    for others in ({}, {"name": "resnet10t", "file": tiny_file}, {"name": "resnet10t", "pretrained": True}):
        with pytest.raises(ModelError, match="--model-arg is for a timm model that starts from chance"):
            choose(**others, arguments=arguments)
