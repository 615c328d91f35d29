import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The wheel, built from this tree and unpacked as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def ovit(site: Path, cwd: Path, *arguments: str) -> str:
    # -P keeps the checkout off the path: what runs is what the wheel holds.
    code = "import sys; from ovit_deploy.cli import main; main(sys.argv[1:])"
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_finds_its_recipes_model_and_images_in_an_empty_folder(installed, tmp_path) -> None:
    told = ovit(installed, tmp_path, "prune", "--recipe", "recipes/deit_75.yaml", "--dry-run")
    assert "matched layers" in told
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_tells_its_version(installed, tmp_path) -> None:
    assert ovit(installed, tmp_path, "--version").strip() == "0.1.0"


def test_the_wheel_holds_the_declarations_and_licences(installed) -> None:
    shipped = installed / "ovit_deploy" / "_shipped"
    for kind in ("recipes", "export", "bench"):
        assert {p.name for p in (ROOT / kind).glob("*.yaml")} <= {p.name for p in (shipped / kind).iterdir()}
    assert (installed / "ovit_deploy" / "report" / "page.html.j2").is_file()
    assert list(installed.glob("*.dist-info/licenses/**/LICENSE.fashion-mnist"))
