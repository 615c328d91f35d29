"""A cell of a comparison, and the journal that keeps every finished one.

The journal is a file of JSON lines: first what the study looks at, then a cell a line, written and flushed when it is
done. A study that is started again with the same folder reads them and goes on with what is missing; half a line, which
a crash can leave at the end, is cut off.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ovit_deploy import json_lines
from ovit_deploy.errors import OvitError, RunError

DENSE = "dense"


@dataclass(frozen=True)
class Cell:
    """One method at one sparsity.

    Args:
        method: Its name; ``dense`` for the model that nothing was removed from.
        settings: Of the method.
        sparsity: Fraction of zeros asked for.
        zeros: Fraction of zeros over the targets that there is.
        top1: Fraction of test images told right, at the end.
        interval95: Wilson's 95 % interval of it.
        correct: Test images told right.
        images: Test images.
        calibration_loss: Mean cross-entropy on the calibration images right after pruning.
        predicted_loss: Increase of that loss that the method predicts, if it predicts one.
        measured_loss: Increase of that loss over the dense model's.
        seconds: Of pruning to this sparsity alone, the shared part included.
        shared_seconds: The part of it that serves all sparsities of the method.
        peak_bytes: Highest resident memory of the process while pruning.
        extra_bytes: By how much that is above what the process held before.
        training: Epochs, seconds and the last epoch's figures, where the cell was trained after pruning.
        details: What the method tells of itself.
    """

    method: str
    settings: dict[str, Any]
    sparsity: float
    zeros: float
    top1: float
    interval95: tuple[float, float]
    correct: int
    images: int
    calibration_loss: float
    predicted_loss: float | None = None
    measured_loss: float = 0.0
    seconds: float = 0.0
    shared_seconds: float = 0.0
    peak_bytes: int = 0
    extra_bytes: int = 0
    training: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Cell":
        """The cell that `as_dict` told of."""
        cell = cls(**{one.name: values[one.name] for one in fields(cls)})
        return cls(**vars(cell) | {"interval95": tuple(values["interval95"])})


class Journal:
    """The finished cells of a study, in memory and in a file.

    Args:
        path: The file; it and its folder are made where missing.
        subject: What the study looks at, ready for JSON; cells of another subject do not mix with its own.

    Raises:
        RunError: The file holds the cells of another study, or is none of this form.
    """

    def __init__(self, path: Path, subject: dict[str, Any]) -> None:
        self.path = path
        self.cells: list[Cell] = []
        subject = json.loads(json.dumps(subject))  # as it will be read back: tuples are lists
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = json_lines.whole_lines(path)
        if not whole:
            json_lines.append(path, {"subject": subject})
            return
        try:
            first, *rest = [json.loads(line) for line in whole]
            known, self.cells = first["subject"], [Cell.from_dict(line) for line in rest]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: not the journal of a study ({error})", "choose another --out") from error
        different = sorted(key for key in subject.keys() | known.keys() if subject.get(key) != known.get(key))
        if different:
            raise RunError(
                f"{path}: holds a study of something else: {', '.join(different)} differ"
                + "".join(f"; {key} was {known.get(key)}, is {subject.get(key)}" for key in different[:1]),
                "choose another --out, or the same options as before",
            )

    def find(self, method: str, sparsity: float, settings: dict[str, Any]) -> Cell | None:
        """The finished cell of that method and sparsity, if there is one.

        Raises:
            OvitError: There is one with other settings.
        """
        wanted = json.loads(json.dumps(settings))
        for cell in self.cells:
            if (cell.method, cell.sparsity) == (method, sparsity):
                if cell.settings != wanted:
                    raise OvitError(
                        f"{self.path}: {method} at {sparsity:g} was done with {cell.settings}, not with {wanted}",
                        "choose another --out, or the same options as before",
                    )
                return cell
        return None

    def add(self, cell: Cell) -> None:
        """Keep a finished cell, at once."""
        json_lines.append(self.path, cell.as_dict())
        self.cells.append(Cell.from_dict(json.loads(json.dumps(cell.as_dict()))))
