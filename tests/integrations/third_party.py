"""A pruner as SparseML's users write them, by the first-order Taylor term. Its imports decide whose engine runs it."""

import os

import torch

if os.environ.get("TAYLOR_ON") == "sparseml":
    from sparseml.pytorch.sparsification import ModifierProp, PyTorchModifierYAML
    from sparseml.pytorch.sparsification.pruning import (
        BaseGradualPruningModifier,
        PruningParamsScorer,
        UnstructuredPruningMaskCreator,
    )
else:
    from ovit_deploy.manager import (
        BaseGradualPruningModifier,
        ModifierProp,
        PruningParamsScorer,
        PyTorchModifierYAML,
        UnstructuredPruningMaskCreator,
    )


class TaylorScorer(PruningParamsScorer):
    """|w g|, averaged over the steps; what is pruned already scores lowest."""

    def __init__(self, params, momentum):
        super().__init__(params)
        self.momentum = momentum
        self.scores = [torch.zeros_like(param) for param in params]

    def pre_optim_step_update(self, masks):
        for score, param in zip(self.scores, self._params, strict=True):
            score.mul_(self.momentum).add_((param.data * param.grad).abs())

    def mask_update(self, masks, mask_diffs):
        for score, mask in zip(self.scores, masks, strict=True):
            score.mul_(mask)

    def score_parameters(self):
        return self.scores


@PyTorchModifierYAML()
class TaylorPruningModifier(BaseGradualPruningModifier):
    """Gradual first-order pruning."""

    def __init__(
        self,
        params,
        init_sparsity,
        final_sparsity,
        start_epoch,
        end_epoch,
        update_frequency,
        momentum=0.9,
        inter_func="cubic",
        leave_enabled=True,
    ):
        super().__init__(
            params=params,
            init_sparsity=init_sparsity,
            final_sparsity=final_sparsity,
            inter_func=inter_func,
            start_epoch=start_epoch,
            end_epoch=end_epoch,
            update_frequency=update_frequency,
            leave_enabled=leave_enabled,
            global_sparsity=True,
            parent_class_kwarg_names=[],
        )
        self._momentum = momentum

    @ModifierProp()
    def momentum(self):
        return self._momentum

    def _get_mask_creator(self, param_names, params):
        return UnstructuredPruningMaskCreator()

    def _get_scorer(self, params):
        return TaylorScorer(params, self._momentum)
