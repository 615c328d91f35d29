"""What a run will take on this machine: measured by a rehearsal, kept in the cache folder, told with the plan."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ovit_deploy import catalog, checkpoint
from ovit_deploy.cli import render
from ovit_deploy.models import Choice
from ovit_deploy.recipe import Recipe

if TYPE_CHECKING:
    from ovit_deploy.finetune.rehearsal import Part

_FOLDER = "rehearsals"


@dataclass(frozen=True)
class Asked:
    """Whose run is estimated."""

    recipe: Recipe
    choice: Choice
    data: str | None
    memory_budget: int | None

    def key(self, machine: dict[str, Any]) -> str:
        """The same for runs that take the same."""
        of = {
            "recipe": [repr(part) for part in (self.recipe.training, self.recipe.compat, *self.recipe.modifiers)],
            "model": asdict(self.choice.spec),
            "weights": self.choice.weights is not None or self.choice.pretrained,
            "data": self.data,
            "memory budget": self.memory_budget,
            "machine": {name: fact for name, fact in machine.items() if name != "load_average"},
        }
        return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]


def measured(asked: Asked) -> dict[str, Any]:
    """Rehearse the run now, and keep what was found."""
    from ovit_deploy.bench import hardware, memory_use
    from ovit_deploy.data import load_data
    from ovit_deploy.finetune.rehearsal import Part, rehearse

    machine = _machine()
    if hardware.is_busy(machine):
        render.warning("other programs keep this machine busy: the run will take less time when they do not")
    data = load_data(asked.data)
    folder = catalog.cache_dir() / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    start = Part("start of the program", 1, time.time() - psutil.Process().create_time())
    memory_use.start_counting()
    parts = rehearse(
        asked.recipe, asked.choice, data, scratch=folder, memory_budget=asked.memory_budget, report=render.note
    )
    found = _facts([start, *parts], memory_use.peak(), machine)
    checkpoint.write(_file(asked, machine), json.dumps(found, indent=2))
    return found


def known(asked: Asked) -> dict[str, Any] | None:
    """What an earlier rehearsal of the same run on this machine found."""
    path = _file(asked, _machine())
    return json.loads(path.read_text()) if path.is_file() else None


def _machine() -> dict[str, Any]:
    import torch

    from ovit_deploy.bench import hardware

    return hardware.describe() | {"threads": torch.get_num_threads()}


def _file(asked: Asked, machine: dict[str, Any]) -> Path:
    return catalog.cache_dir() / _FOLDER / f"{asked.key(machine)}.json"


def _facts(parts: "list[Part]", peak: int, machine: dict[str, Any]) -> dict[str, Any]:
    return {
        "seconds": sum(part.seconds for part in parts),
        "peak_memory_bytes": peak,
        "parts": [asdict(part) | {"seconds": part.seconds} for part in parts],
        "machine": machine,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def show(found: dict[str, Any]) -> None:
    """The parts of the run, and their sum."""
    rows = [(p["name"], p["count"], f"{p['seconds_each']:.3g}", f"{p['seconds']:.0f}") for p in found["parts"]]
    render.table("what a run takes", ("part", "times", "seconds each", "seconds"), rows)
    machine = found["machine"]
    told = f"about {duration(found['seconds'])}, at most {found['peak_memory_bytes'] / 1e9:.2f} GB of memory"
    where = f"measured {found['measured'][:10]} on {machine['cpu']}, {machine['threads']} threads"
    render.line(f"{told} ({where})")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as many as tell something."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
