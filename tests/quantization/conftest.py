import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors are so small that a second thread only gets in the way."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
