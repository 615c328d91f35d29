"""Pruning methods: which weights become zero, and what the others become.

The words, as used in every file here:

    target       a weight tensor that may be pruned, by name; the keys of ``masks``
    mask         bool, shaped like the weight: True where it is kept
    sparsity     fraction of zeros over all targets together; "exact" means round(sparsity * total) zeros
    calibration  training images with labels, the same at each pass
    saliency     what removing a weight costs by a method's model of the loss
    block        B consecutive weights of a target flattened row-major; blocks do not see each other
    pattern      which weights may be zero together: unstructured, N of each M inputs, blocks of R x C    patterns.py
    unit         what goes at a time: a weight, or a block of the pattern
    curve        the greedy order of removal in a block and the marginal loss of each step
    loss         cross-entropy with the data's labels, drawn ones or a teacher's          loss.py
    damping      constant on the diagonal of a Fisher matrix                             damping.py
    jitter       more of the same, where a block could not be inverted; always reported

A method = curvature x saliency x update x allocation:

    curvature    what stands in for the Hessian: none, or a block empirical Fisher     fisher.py, gradients.py
                 of the loss, or the second moments of a layer's inputs                hessian.py
    saliency     |w|, |g w|, or the OBS loss w_p^2 / (2 [F^-1]_pp), once or
                 re-evaluated at each step                                             kernels/eliminate
    update       none; each pruned weight moves the others as if it went alone; the
                 kept weights of the block compensate for all that is pruned; or only  fisher.compensate
                 those to the right of a column, all rows at once                      column_sweep.py
    allocation   how removals are spread over blocks and layers: by loss, or by shares    allocation.py, shares.py,
                 of each layer; with bounds and prices of layers                          spread.py, owl.py, prices.py
                 or by a time that the model may take, from latencies of layers           latency.py

                       curvature             saliency       update        allocation
    OViT               block Fisher          greedy OBS     compensate    any, hull by default
    FastOViT           shared Fisher         OBS, in runs   column sweep  shares
    WoodFisher         block Fisher          OBS, once      summed        any, global (marginal) by default
    MFAC               gradients of a block  OBS, once      summed        any, global by default
    GradientWeight     none                  sum_i |g_i w|  none          any, global by default
    GlobalMagnitude    none                  |w|            none          global
    UniformMagnitude   none                  |w|            none          shares
    FilterMagnitude    none                  row norm       none          uniform, or shared by groups of layers
    Movement           none                  -sum_t g_t w   none          uniform | global
    SparseStart        none                  |w|            none          Erdos-Renyi(-kernel) | uniform
    Wanda              inputs, diagonal      |w| |x|        none          shares, uniform in every row
    SparseGPT          inputs                OBS, in runs   column sweep  shares
    OBC                inputs                greedy OBS     compensate    shares, marginal over the rows of a layer

Movement's t are steps of training; SparseStart is where RigL begins (rigl.py). "Any" are hull, marginal, cumulative and
shares; shares are uniform, erk and owl. All methods prune to all patterns, but for OBC, whose blocks have one row, and
SparseStart, which knows none. OViT can swap weights in a block after allocation (refine.py), and round what is kept to
integers (rounding.py). What the methods with a Fisher differ in is scheme.py, what they share second_order.py and
streaming.py; the layer-wise ones share layerwise.py.

What removes heads, neurons, blocks and channels instead of making zeros is in structured.py.

Each method is a frozen dataclass with one verb, :meth:`~ovit_deploy.pruning.method.Method.prune`, which leaves the
model alone; :func:`apply` then copies its answer into it.
"""

from ovit_deploy.pruning.average import FisherAverage
from ovit_deploy.pruning.fast_ovit import FastOViT
from ovit_deploy.pruning.gradient_weight import GradientWeight
from ovit_deploy.pruning.loss import Loss
from ovit_deploy.pruning.magnitude import GlobalMagnitude, UniformMagnitude
from ovit_deploy.pruning.method import Calibration, Masks, Method, Pruned, Report, apply
from ovit_deploy.pruning.mfac import MFAC
from ovit_deploy.pruning.movement import Movement
from ovit_deploy.pruning.obc import OBC
from ovit_deploy.pruning.ovit import OViT
from ovit_deploy.pruning.ranks import Ranks
from ovit_deploy.pruning.rigl import SparseStart
from ovit_deploy.pruning.sparsegpt import SparseGPT
from ovit_deploy.pruning.sparseml_magnitude import SparseMLMagnitude
from ovit_deploy.pruning.spread import Spread
from ovit_deploy.pruning.wanda import Wanda
from ovit_deploy.pruning.woodfisher import WoodFisher

__all__ = [
    "MFAC",
    "OBC",
    "Calibration",
    "FastOViT",
    "FisherAverage",
    "GlobalMagnitude",
    "GradientWeight",
    "Loss",
    "Masks",
    "Method",
    "Movement",
    "OViT",
    "Pruned",
    "Ranks",
    "Report",
    "SparseGPT",
    "SparseMLMagnitude",
    "SparseStart",
    "Spread",
    "UniformMagnitude",
    "Wanda",
    "WoodFisher",
    "apply",
]
