"""Everything a user can cause, as one tree.

    OvitError
    ├── RecipeError     a recipe cannot be read, or does not fit the model
    ├── ModelError      unknown model, missing or corrupt checkpoint, wrong class count
    ├── DataError       missing, corrupt or mislabelled images
    ├── PruningError    an impossible sparsity, a Fisher that cannot be inverted
    ├── TrainingError   the loss is not finite
    ├── RunError        no run or export where one is needed, a folder that cannot be written
    ├── InterruptedRunError   a run was asked to end, and is saved
    ├── ExportError     the exported file is not the model
    ├── EngineError     an engine is missing, refuses the graph, or died
    └── RegressionError a benchmark is slower than the one it is compared with

An error is one line that says what is wrong and, as its hint, what to do about it. The command line prints both and
exits with the error's ``exit_code``, or where a run was interrupted with 128 and the signal's number. A mistake of our
own is an ``assert``, never an ``OvitError``.
"""


class OvitError(Exception):
    """What is wrong, in one line; ``hint`` says what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class RecipeError(OvitError):
    """A recipe cannot be read, or does not fit the model."""


class ModelError(OvitError):
    """Unknown model, missing or corrupt checkpoint, wrong class count."""


class DataError(OvitError):
    """Missing, corrupt or mislabelled images."""


class PruningError(OvitError):
    """An impossible sparsity, or a Fisher matrix that cannot be inverted."""


class TrainingError(OvitError):
    """Training went wrong: the loss is not finite."""


class RunError(OvitError):
    """No run or export where one is needed, or a folder that cannot be written."""


class InterruptedRunError(OvitError):
    """A run was asked to end by ``signal``, and is saved; ``hint`` is the command that goes on."""

    def __init__(self, message: str, hint: str, signal: int) -> None:
        super().__init__(message, hint)
        self.signal = signal


class ExportError(OvitError):
    """The exported file is not the model it should be."""


class EngineError(OvitError):
    """An engine is missing, refuses the graph, or died."""


class RegressionError(OvitError):
    """A benchmark is slower than the one it is compared with."""

    exit_code = 4
