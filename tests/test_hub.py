"""Real files of a hub's cache, made here: nothing is fetched."""

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from ovit_deploy import hub, models
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.errors import ModelError
from ovit_deploy.models import Choice

PRETRAINED = Choice(ModelSpec("test_vit"), pretrained=True)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path / "cache"))


def put_in_cache(folder) -> dict[str, torch.Tensor]:
    """Weights of test_vit as the hub's client keeps them."""
    repository = folder / f"models--{timm.get_pretrained_cfg('test_vit').hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123")
    (repository / "snapshots" / "0123").mkdir(parents=True)
    weights = timm.create_model("test_vit").state_dict()
    save_file(weights, repository / "snapshots" / "0123" / "model.safetensors")
    return weights


@pytest.mark.parametrize("place", ["HF_HUB_CACHE", "HF_HOME", "OVIT_DEPLOY_CACHE"])
def test_weights_in_a_cache_need_no_network(tmp_path, monkeypatch, place: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv(place, str(tmp_path / "own"))
    weights = put_in_cache(tmp_path / "own" / ("" if place == "HF_HUB_CACHE" else "hub"))
    found = models.build(PRETRAINED).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


def test_the_hubs_own_cache_is_looked_at_too(tmp_path) -> None:
    put_in_cache(tmp_path / "home" / ".cache" / "huggingface" / "hub")
    assert hub.source_of("test_vit").overlay["file"].endswith("model.safetensors")


def test_offline_and_not_in_the_cache_is_told_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="not in .*cache/hub, and HF_HUB_OFFLINE forbids") as caught:
        models.build(PRETRAINED)
    assert "--checkpoint" in caught.value.hint


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ModelError, match="test_vit: .* the hub cannot be reached: .*refused"):
        models.build(PRETRAINED)


def test_a_model_without_pretrained_weights_is_refused() -> None:
    with pytest.raises(ModelError, match="timm has no pretrained weights"):
        hub.source_of("vit_base_patch16_xp_224")
