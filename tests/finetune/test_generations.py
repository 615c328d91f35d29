"""Checkpoints on disks that fill up, fail, and tear files: the last good one is never lost."""

import errno
import os

import pytest
import torch
from failing_disk import Disk
from hypothesis import given
from hypothesis import strategies as st

from ovit_deploy.errors import RunError
from ovit_deploy.finetune import generations, tree

CONTENT = {
    "weights": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)},
    "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"betas": (0.9, 0.999), "lr": 0.1}]},
    "none": None,
}


def silent(_: str) -> None:
    """Nobody is told."""


def test_a_tree_reads_back_as_it_was(tmp_path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(tree.to_bytes(CONTENT))
    found = tree.read(path)
    assert found["optimizer"]["param_groups"] == CONTENT["optimizer"]["param_groups"]
    assert torch.equal(found["optimizer"]["state"][0]["step"], torch.tensor(2.0))
    for name, tensor in CONTENT["weights"].items():
        assert torch.equal(found["weights"][name], tensor)
        assert found["weights"][name].dtype == tensor.dtype
    assert found["none"] is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    )
)
def test_any_plain_tree_reads_back(tmp_path_factory, value) -> None:
    path = tmp_path_factory.mktemp("t") / "t.safetensors"
    path.write_bytes(tree.to_bytes({"tensor": torch.zeros(1), "value": value}))
    assert tree.read(path)["value"] == value


def test_a_tensor_in_two_places_stays_one(tmp_path) -> None:
    shared = torch.ones(3)
    path = tmp_path / "t.safetensors"
    path.write_bytes(tree.to_bytes({"a": shared, "b": [shared]}))
    found = tree.read(path)
    assert found["a"] is found["b"][0]


def test_what_cannot_be_saved_is_told() -> None:
    with pytest.raises(RunError, match="set at /a cannot be saved"):
        tree.to_bytes({"a": {1, 2}})


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_whichever_write_flush_or_renaming_fails_a_good_checkpoint_is_left(tmp_path, monkeypatch, error) -> None:
    disk = Disk(monkeypatch)
    generations.save(tmp_path, {"n": 0}, step=0, acted=False)
    calls, failures = disk.calls, 0
    disk.error = error
    for number in range(1, 2 * calls + 1):
        disk.calls, disk.failing = 0, 1 + (number - 1) % calls
        before = generations.newest(tmp_path, silent)["n"]
        with pytest.raises(OSError, match=os.strerror(error)):
            generations.save(tmp_path, {"n": number}, step=number, acted=False)
        failures += 1
        disk.failing = None
        assert generations.newest(tmp_path, silent)["n"] in (before, number)
        assert not list(tmp_path.glob(".*"))
    assert calls == 4  # a write, two flushes, a renaming
    assert failures == 2 * calls


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "bit", "header"])
def test_a_torn_file_is_told_and_the_one_before_it_taken(tmp_path, damage) -> None:
    generations.save(tmp_path, CONTENT | {"n": 1}, step=1, acted=False)
    path = generations.save(tmp_path, CONTENT | {"n": 2}, step=1, acted=True)
    whole = path.read_bytes()
    torn = {
        "cut": whole[:-3],
        "empty": b"",
        "zeros": bytes(len(whole)),
        "bit": whole[:-1] + bytes([whole[-1] ^ 1]),
        "header": whole[:20],
    }
    path.write_bytes(torn[damage])
    told: list[str] = []
    assert generations.newest(tmp_path, told.append)["n"] == 1
    assert path.name in told[0]
    generations.save(tmp_path, CONTENT | {"n": 3}, step=2, acted=False)
    assert generations.newest(tmp_path, silent)["n"] == 3


def test_two_are_kept(tmp_path) -> None:
    for step, acted in ((1, False), (1, True), (2, False), (10, False)):
        generations.save(tmp_path, {"n": 10 * step + acted}, step=step, acted=acted)
    assert len(list(tmp_path.iterdir())) == 2
    assert generations.newest(tmp_path, silent)["n"] == 100


def test_no_whole_checkpoint_is_an_error(tmp_path) -> None:
    generations.save(tmp_path, {"n": 1}, step=1, acted=False).write_bytes(b"")
    with pytest.raises(RunError, match="no whole checkpoint"):
        generations.newest(tmp_path, silent)
