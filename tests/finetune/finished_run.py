"""What is done with the files of a run that is finished."""

from pathlib import Path

import torch

from ovit_deploy import models
from ovit_deploy.checkpoint import load_run
from ovit_deploy.export.card import Facts
from ovit_deploy.export.deployment import ExportReport, export
from ovit_deploy.export.profile import load_profile
from ovit_deploy.finetune.run import Finished


def rebuilt(finished: Finished) -> torch.nn.Module:
    """The model of its checkpoint, from the file alone."""
    return models.build(models.choose(None, checkpoint=finished.folder / "model.safetensors", pretrained=False))


def exported(finished: Finished, images: torch.Tensor, *, profile: str, to: Path) -> ExportReport:
    """Its deployment, written to the folder ``to``."""
    source = load_run(finished.folder)
    spec = source.spec
    return export(
        rebuilt(finished),
        images=images,
        masks=source.masks(),
        profile=load_profile(profile),
        facts=Facts(spec.name, spec.kwargs, spec.classes, structure=spec.structure, token_merging=spec.token_merging),
        recipe_text=source.recipe_text,
        destination=to,
    )
