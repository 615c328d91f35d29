from collections.abc import Callable

import pytest
import torch

from ovit_deploy.cli import app


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors are so small that a second thread only gets in the way."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def explain(workplace, monkeypatch, tmp_path) -> Callable[..., None]:
    """``ovit-deploy explain`` on the tiny ViT, with a cache of its own."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> None:
        given = ["explain", "--checkpoint", "dense.safetensors", *arguments]
        app(given, exit_on_error=False, result_action="return_value")

    return run
