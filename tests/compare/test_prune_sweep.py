import json

import pytest

from ovit_deploy.errors import OvitError

ONESHOT = """
modifiers:
  - !OViTPruningModifier
    params: ["re:blocks.*(attn|mlp).*weight"]
    init_sparsity: 0.75
    final_sparsity: 0.75
    start_epoch: 0
    end_epoch: 0
    update_frequency: 1
    num_grads: 40
training: {batch_size: 16}
"""


def test_prune_with_a_sweep_leaves_a_run_for_each_sparsity(ovit, workplace, capsys) -> None:
    (workplace / "oneshot.yaml").write_text(ONESHOT)
    ovit("prune", "--recipe", "oneshot.yaml", "--sweep", "0.9,0.5", "--name", "swept")
    for percent in (50, 90):
        facts = json.loads((workplace / f"runs/swept-{percent}/run.json").read_text())
        assert facts["sparsity"]["prunable"] == pytest.approx(percent / 100, abs=1e-4)
    told = capsys.readouterr()
    assert told.err.count("40 gradients of") == 1
    assert "runs/swept-90" in told.out


@pytest.mark.parametrize(("more", "told"), [(("--dry-run",), "--sweep with --dry-run"), ((), "no sparsity")])
def test_a_sweep_that_means_nothing_is_refused(ovit, workplace, more, told) -> None:
    (workplace / "oneshot.yaml").write_text(ONESHOT)
    with pytest.raises(OvitError, match=told):
        ovit("prune", "--recipe", "oneshot.yaml", "--sweep", "0.5" if more else "1.5", *more)
