import os
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
def ovit(workplace, monkeypatch) -> Callable[..., None]:
    """The command line on that model and those images, in this process."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("sys.argv", [os.fspath(workplace / "ovit-deploy")])

    def run(verb: str, *arguments: str) -> None:
        given = [verb, "--checkpoint", "dense.safetensors", "--data", "images", *arguments]
        monkeypatch.setattr("sys.argv", ["ovit-deploy", *given])
        app(given, exit_on_error=False, result_action="return_value")

    return run
