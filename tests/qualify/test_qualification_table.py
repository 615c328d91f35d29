import pytest

from ovit_deploy.qualify import table
from ovit_deploy.qualify.task import Row

GOOD = (
    Row("resnet18", family="ResNet", module="resnet"),
    Row("resnet50d", family="ResNet", module="resnet"),
    Row("regnety_002", module="regnet"),
    Row("regnetx_002", module="regnet"),
    Row("test_vit", family="ViT, DeiT", module="vision_transformer"),
    Row("vit_small_patch14_dinov2", family="DINOv2, DINOv3", module="vision_transformer"),
)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ((), "6 of 6 models qualify, of 4 families"),
        ((Row("levit_128s", module="levit", failures={"prune": "no"}),), "6 of 7 models qualify, of 4 families"),
        ((Row("levit_128s", module="levit"),), "7 of 7 models qualify, of 5 families"),
        # ours have no name for it, but its module is that of one that has
        ((Row("something_else", module="resnet"),), "7 of 7 models qualify, of 4 families"),
    ],
)
def test_models_of_no_family_of_ours_count_by_the_module_of_timm(others: tuple[Row, ...], told: str) -> None:
    assert table.summary([*GOOD, *others]) == told


def test_the_family_or_the_module_stands_in_the_table() -> None:
    assert [table.cells(row)[1] for row in GOOD[1:3]] == ["ResNet", "regnet"]
