from pathlib import Path

import pytest

from ovit_deploy.catalog import shipped
from ovit_deploy.errors import ExportError
from ovit_deploy.export.profile import load_profile

SHIPPED = sorted(path.stem for path in shipped("export").glob("*.yaml"))


def write(folder: Path, *changes: tuple[str, str]) -> Path:
    text = (shipped("export") / "deepsparse.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "own.yaml"
    path.write_text(text)
    return path


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_read_by_its_bare_name(name: str) -> None:
    assert load_profile(name).name == name


def test_the_deepsparse_profile_fits_the_onnx_runtime_inside_deepsparse() -> None:
    profile = load_profile("deepsparse")
    assert profile.opset <= 19
    assert profile.ir_version <= 9


def test_an_own_file_is_called_as_its_file(tmp_path: Path) -> None:
    assert load_profile(write(tmp_path, ("batch: dynamic", "batch: 4"))).model_dump()["batch"] == 4
    assert load_profile(tmp_path / "own.yaml").name == "own"


def test_an_unknown_profile_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ExportError, match="deepspars: no such file") as error:
        load_profile("deepspars")
    assert "did you mean deepsparse?" in error.value.hint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tolerance:", "tolerence:", "unknown key tolerence, did you mean tolerance?"),
        ("opset: 18", "opset: 16", "opset: Input should be greater than or equal to 18 (found 16)"),
        ("batch: dynamic", "batch: 0", "batch"),
        ("- fold_weights ", "- fold_weight ", "no such pass, did you mean fold_weights?"),
        ("description: ", "name: x\ndescription: ", "unknown key name"),
        ("opset: 18", "opset: 18\nopset: 19", "a second time"),
        ("opset: 18", "opset: [18", ""),
    ],
)
def test_a_wrong_profile_is_refused_with_file_and_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, (old, new))
    with pytest.raises(ExportError) as error:
        load_profile(path)
    assert f"{path}:" in error.value.message
    assert message in error.value.message


def test_the_line_of_a_problem_is_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, ("tolerance:", "tolerence:"))
    with pytest.raises(ExportError, match=rf"own.yaml:{line_of(path, 'tolerence')}:"):
        load_profile(path)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, ("opset: 18", "opset: no"), ("description:", "descripton:"))
    with pytest.raises(ExportError) as error:
        load_profile(path)
    assert "description is missing" in error.value.message
    assert "unknown key descripton, did you mean description?" in error.value.message
    assert "opset: " in error.value.message


@pytest.mark.parametrize("content", [b"", b"- a\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_profile_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"own\.yaml"):
        load_profile(path)
