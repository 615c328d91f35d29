"""Structure: which parts of a vision transformer there are, parts that are taken out for good, and what is left costs.

The words:

    block       attention and an MLP around the residual stream; blocks keep their number (and so their weights keep
                their names) when others go
    head        its rows of Q, K and V in ``attn.qkv``, and its columns of ``attn.proj``
    neuron      a row of ``mlp.fc1`` with its bias, and a column of ``mlp.fc2``
    width       the number of neurons of a block
    kept        numbers of what stays                                             removal.py
    channel     a feature map of any other network, in all layers that have a share in it
    structure   what is left: data, enough to build the network                   sizes.py

cutting.py    tensors cut in place by a plan, which cuts alike what goes with them
sizes.py      `Structure` and `Shapes`, which checkpoints carry as JSON
vit.py        the blocks of timm's VisionTransformer, or an error that says why a model has none that we know
removal.py    parts taken out of a ViT in place; a fresh one brought to a structure
channels.py   the same of channels in networks of any make
stream.py     the same of a ViT's residual stream: its embedding width
dependencies.py  which channels go together, by torch-pruning; tried before they are believed
costs.py      parameters and multiply-accumulates of a structure, exactly; its time, from measured curves
merging.py    tokens merged at run time (ToMe)

Heads and blocks are those of VisionTransformer (ViT, DeiT, DINOv2 without SwiGLU).
"""

from ovit_deploy.structure.costs import Costs, Prices, Times, counting, macs, parameters
from ovit_deploy.structure.cutting import Cut, Cuts, cut
from ovit_deploy.structure.merging import merge_tokens, merging_of
from ovit_deploy.structure.rebuilding import rebuild
from ovit_deploy.structure.removal import Kept, cuts, everything, remove, shrink
from ovit_deploy.structure.sizes import AnyStructure, BlockSizes, Shapes, Structure, read_structure
from ovit_deploy.structure.vit import blocks_of, structure_of

__all__ = [
    "AnyStructure",
    "BlockSizes",
    "Costs",
    "Cut",
    "Cuts",
    "Kept",
    "Prices",
    "Shapes",
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
    "read_structure",
    "rebuild",
    "remove",
    "shrink",
    "structure_of",
]
