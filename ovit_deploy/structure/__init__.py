"""Structure: which parts of a vision transformer there are, parts that are taken out for good, and what is left costs.

The words:

    block       attention and an MLP around the residual stream; blocks keep their number (and so their weights keep
                their names) when others go
    head        its rows of Q, K and V in ``attn.qkv``, and its columns of ``attn.proj``
    neuron      a row of ``mlp.fc1`` with its bias, and a column of ``mlp.fc2``
    width       the number of neurons of a block
    kept        numbers of what stays                                             removal.py
    structure   how many of each there are: data, enough to build the network     sizes.py

sizes.py      `Structure`, which checkpoints carry as JSON
vit.py        the blocks of timm's VisionTransformer, or an error that says why a model has none that we know
removal.py    parts taken out of a model in place; a fresh model brought to a structure
costs.py      parameters and multiply-accumulates of a structure, exactly; its time, from measured curves
merging.py    tokens merged at run time (ToMe)

The embedding width, and families other than VisionTransformer (ViT, DeiT, DINOv2 without SwiGLU), are not cut.
"""

from ovit_deploy.structure.costs import Costs, Prices, Times, counting, macs, parameters
from ovit_deploy.structure.merging import merge_tokens, merging_of
from ovit_deploy.structure.removal import Cut, Kept, cut, cuts, everything, remove, shrink
from ovit_deploy.structure.sizes import BlockSizes, Structure
from ovit_deploy.structure.vit import blocks_of, structure_of

__all__ = [
    "BlockSizes",
    "Costs",
    "Cut",
    "Kept",
    "Prices",
    "Structure",
    "Times",
    "blocks_of",
    "counting",
    "cut",
    "cuts",
    "everything",
    "macs",
    "merge_tokens",
    "merging_of",
    "parameters",
    "remove",
    "shrink",
    "structure_of",
]
