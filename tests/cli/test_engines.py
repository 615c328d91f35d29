import json
from pathlib import Path

import pytest

from ovit_deploy.cli import main
from ovit_deploy.engines import ENGINES, environments, inventory


def run(*arguments: str) -> int | str | None:
    """The exit code of ``ovit-deploy engines``."""
    with pytest.raises(SystemExit) as left:
        main(["engines", *arguments])
    return left.value.code


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path))
    return tmp_path


def test_the_table_names_every_engine_and_how_to_install_what_is_absent(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ENGINES)
    assert "absent" in shown
    assert "to install deepsparse: ovit-deploy engines install deepsparse" in shown
    assert "openvino:precision=f32|bf16" in shown
    assert "CPU: " in shown


def test_json_tells_versions_licences_and_instructions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["engine"]: row for row in found["engines"]}
    assert list(rows) == list(ENGINES)
    assert rows["onnxruntime"]["present"]
    assert not rows["deepsparse"]["present"]
    assert "evaluation" in rows["deepsparse"]["licence"]
    assert set(found["cpu"]) == {"cpu", "instructions", "usable_cores"}


def test_an_environment_tells_its_engines_version_once_it_is_complete(empty_cache: Path) -> None:
    place = environments.location("deepsparse")
    distribution = place / "lib/python3.11/site-packages/deepsparse-1.8.0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: deepsparse\nVersion: 1.8.0\n")
    assert not inventory.status("deepsparse").present
    (place / environments.MARKER).write_text(json.dumps(ENGINES["deepsparse"].pins))
    assert inventory.status("deepsparse").version == "1.8.0"


@pytest.mark.parametrize(
    ("engine", "expected"),
    [("onnxruntime", "lives in the environment of ovit-deploy itself"), ("tensorflow", "no engine 'tensorflow'")],
)
def test_only_an_engine_with_an_environment_of_its_own_is_installed(
    engine: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("install", engine) == 1
    shown = capsys.readouterr().err
    assert expected in shown
    assert "hint:" in shown
