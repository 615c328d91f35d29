"""The whole from its pieces: plain arithmetic on made-up times."""

from collections import Counter

import pytest

from ovit_deploy.explain.alternatives import alternatives
from ovit_deploy.explain.forms import Form, compared, value_ms, values_ms
from ovit_deploy.explain.prediction import Shares, _parts

ENDS_MS = 2.0
PARTS_MS = {"linears": 6.0, "without products": 7.0, "all": 10.0}
DENSE, SPARSE = Form("deepsparse"), Form("deepsparse", 0.75)


def made_up(combination, *, slower=(1.0, 3.0, 2.0)) -> dict:
    """Rounds of a machine that gets slower and faster: every piece takes what its blocks take."""
    rounds = {}
    for timed in combination:
        zeros_save = 4.0 if any(timed.piece.zeros) else 0.0
        ms = ENDS_MS + len(timed.piece.blocks) * (PARTS_MS[timed.piece.part] - zeros_save)
        rounds[timed] = [factor * ms for factor in slower]
    return rounds


def test_the_whole_is_its_ends_and_all_its_blocks() -> None:
    whole = DENSE.whole(Counter([0] * 12))
    assert values_ms(whole, made_up(whole)) == pytest.approx([122, 366, 244])


def test_kinds_of_blocks_count_as_often_as_they_are_there() -> None:
    whole = DENSE.whole({0: 2, 5: 3})
    assert {timed.piece.blocks for timed in whole} == {(), (0, 0, 0), (5, 5, 5)}
    assert value_ms(whole, made_up(whole, slower=(1.0,))) == pytest.approx(ENDS_MS + 50)


def test_a_machine_that_slows_down_does_not_change_the_ratio() -> None:
    kinds = Counter([0] * 12)
    dense, sparse = DENSE.whole(kinds), SPARSE.whole(kinds)
    rounds = made_up([*dense, *sparse], slower=(1.0, 3.0, 2.0, 1.5, 1.0, 4.0))
    found = compared(dense, sparse, rounds, seed=0)
    assert found.factor == pytest.approx(122 / 74)
    assert found.low == pytest.approx(found.high)


def test_shares_add_up_to_the_whole() -> None:
    kinds = Counter([0] * 12)
    parts = _parts(DENSE, SPARSE, kinds)
    rounds = made_up([timed for part in parts.values() for timed in part], slower=(1.0,))
    shares = Shares(**{name: value_ms(part, rounds) for name, part in parts.items()})
    assert (shares.linears, shares.products, shares.rest, shares.ends) == pytest.approx((72, 36, 12, 2))
    assert shares.sparse_linears == pytest.approx(72 - 12 * 4)
    assert shares.linear_gain == pytest.approx(3)
    assert shares.fixed == pytest.approx(50 / 122)


def test_alternatives_are_other_forms_each_once() -> None:
    found = alternatives(Form("onnxruntime", 0.9, pattern="block4"))
    assert len(found) == len(set(found))
    assert Form("onnxruntime", 0.9, pattern="block4") not in found
    assert Form("onnxruntime", 0.9, "int8", "block4") in found
    assert Form("onnxruntime", part="half MLP") in found
