"""What is known of each family of models: which weights are pruned by default, and in Fisher blocks of what size.

The first family whose patterns fit a timm name is the model's. Patches, stems, classifiers, position tables, depthwise
convolutions and squeeze-and-excitation stay dense: few weights, much accuracy. So do the shortcuts of ResNets, whose
convolutions are called as the norms of others are.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from ovit_deploy.selectors import Shapes, match, prunable

ENDS = frozenset({"patch_embed", "stem", "head", "classifier", "fc", "conv_stem"})


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        name: For tables.
        models: Patterns of timm names, with ``*`` and ``?``; those after a ``!`` are not of the family.
        targets: Selectors of the weights to prune, as ``params`` of a recipe; every member has some of each.
        fisher_block_size: B, the least size of a Fisher block.
        damping: Added to the diagonal of the Fisher matrices.
        recipe: The shipped recipe to 75 %.
        smallest: The least member that timm has.
        of_paper: Whether the paper prunes it (oViT, arXiv 2210.09223, and CAP, its second version). It names the
            targets of ViT, XCiT and Swin, and B of ViT, ResNet, EfficientNet and ConvNeXt; the others are ours.
    """

    name: str
    models: tuple[str, ...]
    targets: tuple[str, ...]
    fisher_block_size: int = 192
    damping: float = 1e-8
    recipe: str = "deit_75"
    smallest: str = ""
    of_paper: bool = False

    def has(self, model: str) -> bool:
        """Whether ``model``, a timm name without tag, is of the family."""
        refused = [pattern[1:] for pattern in self.models if pattern.startswith("!")]
        return any(fnmatchcase(model, p) for p in self.models) and not any(fnmatchcase(model, p) for p in refused)


BLOCKS = r"re:blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))\.weight"

TRANSFORMERS = Family(
    "ViTs of transformers",
    ("hf:*",),
    (r"re:\w+\.(layers|encoder\.layer)\.\d+\.(attention\.[qkvo]_proj|mlp\.(fc1|fc2|weights_in|weights_out))\.weight",),
    recipe="hf_vit_75",
)

FAMILIES = (
    Family("CLIP, SigLIP", ("vit_*clip*", "vit_*siglip*"), (BLOCKS,), smallest="vit_xsmall_patch16_clip_224"),
    Family("DINOv2, DINOv3", ("vit_*dinov2*", "vit_*dinov3*"), (BLOCKS,), smallest="vit_small_patch14_dinov2"),
    Family(
        "ViT, DeiT",
        ("vit_*", "deit_*", "deit3_*", "flexivit_*", "test_vit*"),
        (BLOCKS,),
        smallest="deit_tiny_patch16_224",
        of_paper=True,
    ),
    Family(
        "XCiT",
        ("xcit_*",),
        (
            r"re:(cls_attn_)?blocks\.\d+\.(attn\.(qkv|q|k|v|proj)|mlp\.(fc1|fc2))\.weight",
            r"re:blocks\.\d+\.local_mp\.conv[12]\.weight",
        ),
        recipe="xcit_75",
        smallest="xcit_nano_12_p16_224",
        of_paper=True,
    ),
    Family(
        "Swin",
        ("swin_*", "swinv2_*"),
        (
            r"re:layers\.\d+\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))\.weight",
            r"re:layers\.\d+\.downsample\.reduction\.weight",
        ),
        recipe="swin_75",
        smallest="swin_tiny_patch4_window7_224",
        of_paper=True,
    ),
    Family(
        "EfficientFormer",
        ("efficientformer_*", "efficientformerv2_*"),
        (
            r"re:stages\.\d+\.blocks\.\d+\.(token_mixer\.(qkv|q|k|v|proj)|mlp\.(fc1|fc2))(\.conv)?\.weight",
            r"re:stages\.\d+\.downsample\.(conv|attn\.(q\.proj|k|v|proj))(\.conv)?\.weight",
        ),
        recipe="efficientformer_75",
        smallest="efficientformerv2_s0",
        of_paper=True,
    ),
    Family(
        "ResNet",
        (
            *("resnet[0-9]*", "resnext*", "seresnet*", "seresnext*", "wide_resnet*", "ecaresnet*", "resnetrs*"),
            *("test_resnet", "!*clip*"),
        ),
        (r"re:layer\d+\.\d+\.conv\d\.weight",),
        fisher_block_size=256,
        recipe="resnet_75",
        smallest="resnet10t",
        of_paper=True,
    ),
    Family(
        "EfficientNet",
        (
            *("efficientnet_*", "efficientnetv2_*", "tf_efficientnet*", "mobilenetv2_*", "test_efficientnet*"),
            *("!efficientnet_cc_*", "!tf_efficientnet_cc_*"),
        ),
        (r"re:(blocks\.\d+\.\d+\.(conv|conv_exp|conv_pw|conv_pwl)|conv_head)\.weight",),
        fisher_block_size=16,
        recipe="efficientnet_75",
        smallest="efficientnet_b0",
        of_paper=True,
    ),
    Family(
        "ConvNeXt",
        ("convnext_*", "convnextv2_*", "test_convnext*"),
        (r"re:stages\.\d+\.(blocks\.\d+\.mlp\.(fc1|fc2)|downsample\.1)\.weight",),
        fisher_block_size=128,
        damping=1e-7,
        recipe="convnext_75",
        smallest="convnext_atto",
        of_paper=True,
    ),
    Family(
        "BEiT, EVA",
        ("beit_*", "beitv2_*", "eva_*", "eva02_*"),
        (r"re:blocks\.\d+\.(attn\.(qkv|q_proj|k_proj|v_proj|proj)|mlp\.(fc1|fc1_g|fc1_x|fc2))\.weight",),
        recipe="eva_75",
        smallest="eva02_tiny_patch14_224",
    ),
    Family(
        "CaiT",
        ("cait_*",),
        (r"re:blocks(_token_only)?\.\d+\.(attn\.(qkv|q|k|v|proj)|mlp\.(fc1|fc2))\.weight",),
        recipe="cait_75",
        smallest="cait_xxs24_224",
    ),
    Family(
        "MobileViT",
        ("mobilevit_*", "mobilevitv2_*"),
        (
            r"re:stages\.\d+\.\d+\.transformer\.\d+\.(attn\.(qkv|proj|qkv_proj|out_proj)|mlp\.(fc1|fc2))\.weight",
            r"re:stages\.\d+\.\d+\.(conv1_1x1\.conv|conv3_1x1\.conv|conv_1x1|conv_proj\.conv)\.weight",
        ),
        recipe="mobilevit_75",
        smallest="mobilevitv2_050",
    ),
    Family(
        "TinyViT",
        ("tiny_vit_*",),
        (
            r"re:stages\.\d+\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2)|conv[13]\.conv)\.weight",
            r"re:stages\.\d+\.downsample\.conv[13]\.conv\.weight",
        ),
        recipe="tinyvit_75",
        smallest="tiny_vit_5m_224",
    ),
    Family(
        "MaxViT, CoAtNet",
        ("maxvit_*", "maxxvit*", "coatnet_*", "coatnext_*", "test_maxvit", "test_coatnet", "!maxvit_*_tf_*"),
        (r"re:stages\.\d+\.blocks\.\d+\.(\w+\.)?(attn\.(qkv|proj)|mlp\.(fc1|fc2)|conv1_1x1|conv3_1x1)\.weight",),
        recipe="maxvit_75",
        smallest="maxvit_rmlp_pico_rw_256",
    ),
)


def family_of(model: str) -> Family | None:
    """The family of a timm name, with or without tag, or of one of transformers; None for one that is not known."""
    bare = model.partition(".")[0]
    return next((family for family in (*FAMILIES, TRANSFORMERS) if family.has(bare)), None)


def targets_of(model: str, shapes: Shapes) -> tuple[str, ...]:
    """Selectors of what is pruned in ``model`` by default.

    Those of its family; in a model of no family, all matrices and convolutions but the stem's and the head's, by name.

    Args:
        model: timm's name.
        shapes: Shapes of its parameters, by name.

    Raises:
        SelectorError: The model has not what its family has.
    """
    family = family_of(model)
    if family is None:
        return tuple(name for name in prunable(shapes) if not set(name.split(".")) & ENDS)
    match(family.targets, shapes)
    return family.targets
