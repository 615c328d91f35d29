"""timm's pretrained weights: files in the hub's cache, or on the hub; told at once where neither can be had.

Weights that are in a cache are read from there without asking the network. ``$HF_HUB_CACHE`` and ``$HF_HOME`` say
where the hub's cache is; without them new files go to ``hub/`` in our cache folder, and ``~/.cache/huggingface`` is
looked at, too. ``$HF_HUB_OFFLINE=1`` forbids the network.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovit_deploy.catalog import cache_dir
from ovit_deploy.errors import ModelError

FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Source:
    """Where timm is to take pretrained weights from.

    Args:
        folder: The cache that a download goes to.
        overlay: What differs from timm's configuration of the model: the file, where it is in a cache.
    """

    folder: Path
    overlay: dict[str, Any]


def source_of(name: str) -> Source:
    """Where the pretrained weights of a timm model come from.

    Raises:
        ModelError: There are none, or they are in no cache and the hub cannot be reached.
    """
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ModelError(f"{name}: timm has no pretrained weights of it", "leave out --pretrained, or give another tag")
    folder = caches()[0]
    if found := cached(name):
        loader = {} if isinstance(config.custom_load, str) else {"custom_load": False}
        return Source(folder, {"file": str(found), **loader})
    if config.hf_hub_id:
        _check_reachable(name, config.hf_hub_id, folder)
    return Source(folder, {})


def cached(name: str) -> Path | None:
    """The file of a model's pretrained weights, if it is in a cache."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    repository, _, revision = config.hf_hub_id.partition("@")
    for folder in caches():
        for file in (config.hf_hub_filename,) if config.hf_hub_filename else FILES:
            found = try_to_load_from_cache(repository, file, cache_dir=folder, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
    return None


def caches() -> list[Path]:
    """The folders that may hold the hub's files; the first is where new ones go."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return [Path(folder)]
    if home := os.environ.get("HF_HOME"):
        return [Path(home) / "hub"]
    return [cache_dir() / "hub", Path.home() / ".cache" / "huggingface" / "hub"]


def _check_reachable(name: str, repository: str, folder: Path) -> None:
    """Ask the hub once; its own client would repeat a question without an answer for most of a minute."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    missing = f"{name}: pretrained weights are not in {folder}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        hint = f"fetch {repository} where there is a network, or give the weights with --checkpoint file.safetensors"
        raise ModelError(f"{missing}, and HF_HUB_OFFLINE forbids the network", hint)
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception as error:  # the transport's errors have no common base but Exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{missing}, and the hub cannot be reached: {reason}",
            "check the network, or give the weights with --checkpoint file.safetensors",
        ) from error
