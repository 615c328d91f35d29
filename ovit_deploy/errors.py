"""Everything a user can cause, as one tree.

    OvitError
    ├── RecipeError     a recipe cannot be read, or does not fit the model
    ├── ModelError      unknown model, missing or corrupt checkpoint, wrong class count
    ├── DataError       missing, corrupt or mislabelled images
    │   └── DamagedImageError   one image cannot be read
    ├── PruningError    an impossible sparsity
    │   └── NotFiniteError      a loss, gradient or Fisher that is not finite, or cannot be inverted
    ├── TrainingError   the loss is not finite
    ├── RunError        no run or export where one is needed, a folder that cannot be written
    ├── RankError       another process of the same run has ended
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


class DamagedImageError(DataError):
    """One image cannot be read.

    Args:
        name: of its file, or of where it stands.
        why: what is wrong with it.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: cannot be read as an image: {why}", "replace or remove it")
        self.name = name
        self.why = why

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """To pass from one process to another."""
        return type(self), (self.name, self.why)


class PruningError(OvitError):
    """An impossible sparsity."""


class NotFiniteError(PruningError):
    """A loss, gradient or Fisher matrix is not finite or cannot be inverted: more damping or other images may help."""


class TrainingError(OvitError):
    """Training went wrong: the loss is not finite."""


class RunError(OvitError):
    """No run or export where one is needed, or a folder that cannot be written."""


class RankError(OvitError):
    """Another process of the same run has ended, or is silent: this one cannot go on without it."""


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch could not have the memory that it asked for, on the CPU (oneDNN, too) or a GPU."""
    signs = ("out of memory", "can't allocate memory", "not enough memory", "could not create a primitive")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
