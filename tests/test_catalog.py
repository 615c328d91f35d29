from pathlib import Path

import pytest

from ovit_deploy import catalog
from ovit_deploy.errors import OvitError


def test_a_shipped_recipe_is_found_by_bare_name_and_by_path_in_any_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("deit_75", "deit_75.yaml", "recipes/deit_75.yaml"):
        assert catalog.find("recipes", name) == catalog.shipped("recipes") / "deit_75.yaml"


def test_the_users_own_file_comes_first(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "deit_75.yaml").write_text("mine")
    assert catalog.find("recipes", "recipes/deit_75.yaml") == Path("recipes/deit_75.yaml")


def test_an_unknown_name_is_told_its_nearest(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OvitError) as caught:
        catalog.find("recipes", "recipes/deit75.yaml")
    assert "did you mean deit_75?" in caught.value.hint


def test_a_path_elsewhere_is_never_taken_for_a_shipped_name(tmp_path) -> None:
    with pytest.raises(OvitError, match="no such file"):
        catalog.find("recipes", tmp_path / "deit_75.yaml")


def test_the_cache_folder_can_be_chosen(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path))
    assert catalog.cache_dir() == tmp_path
