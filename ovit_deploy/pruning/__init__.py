"""Pruning methods: which weights become zero, and what the others become.

The words, as used in every file here:

    target       a weight tensor that may be pruned, by name; the keys of ``masks``
    mask         bool, shaped like the weight: True where it is kept
    sparsity     fraction of zeros over all targets together; "exact" means round(sparsity * total) zeros
    calibration  training images with labels, the same at each pass
    saliency     what removing a weight costs by a method's model of the loss
    block        B consecutive weights of a target flattened row-major; blocks do not see each other
    curve        the greedy order of removal in a block and the marginal loss of each step
    damping      constant on the diagonal of a Fisher matrix
    jitter       more of the same, where a block could not be inverted; always reported

A method = curvature x saliency x update x allocation:

    curvature    what stands in for the Hessian: none, or a block empirical Fisher     fisher.py, gradients.py
                 of the loss, or the second moments of a layer's inputs                hessian.py
    saliency     |w|, or the OBS loss w_p^2 / (2 [F^-1]_pp) re-evaluated at each step  kernels/eliminate
    update       none, or the kept weights of the block compensate for the pruned      fisher.compensate
                 or only those to the right of a column, all rows at once              column_sweep.py
    allocation   how removals are spread over blocks and layers                        allocation.py

                       curvature     saliency       update       allocation
    OViT               block Fisher  greedy OBS     compensate   hull | marginal | cumulative | uniform
    GlobalMagnitude    none          |w|            none         global
    UniformMagnitude   none          |w|            none         uniform
    Wanda              inputs, diag  |w| |x|        none         uniform in every row
    SparseGPT          inputs        OBS, in runs   column sweep uniform
    OBC                inputs        greedy OBS     compensate   uniform, marginal over the rows of a layer
    FastOViT           shared Fisher OBS, in runs   column sweep uniform

Each is a frozen dataclass with one verb, :meth:`~ovit_deploy.pruning.method.Method.prune`, which leaves the model
alone; :func:`apply` then copies its answer into the model.
"""

from ovit_deploy.pruning.fast_ovit import FastOViT
from ovit_deploy.pruning.magnitude import GlobalMagnitude, UniformMagnitude
from ovit_deploy.pruning.method import Calibration, Masks, Method, Pruned, Report, apply
from ovit_deploy.pruning.obc import OBC
from ovit_deploy.pruning.ovit import OViT
from ovit_deploy.pruning.sparsegpt import SparseGPT
from ovit_deploy.pruning.wanda import Wanda

__all__ = [
    "OBC",
    "Calibration",
    "FastOViT",
    "GlobalMagnitude",
    "Masks",
    "Method",
    "OViT",
    "Pruned",
    "Report",
    "SparseGPT",
    "UniformMagnitude",
    "Wanda",
    "apply",
]
