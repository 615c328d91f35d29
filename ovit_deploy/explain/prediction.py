"""What a model gains from zeros on an engine, predicted before anything is trained: how much, why, what else helps."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ovit_deploy.bench.verdict import SpeedUp
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import OvitError
from ovit_deploy.explain import pieces
from ovit_deploy.explain.forms import Combination, Form, added, compared, value_ms
from ovit_deploy.explain.session import Bench


@dataclass(frozen=True)
class Prediction:
    """What a form of the model would take.

    Args:
        engine: with options.
        form: in words.
        ms: a run; None if it failed.
        vs_dense: against the dense form that was asked about, measured beside it; None for that form itself.
        error: why there is no prediction.
    """

    engine: str
    form: str
    ms: float | None = None
    vs_dense: SpeedUp | None = None
    error: str | None = None


@dataclass(frozen=True)
class Shares:
    """Where the dense model spends its time, in ms, and what zeros make of its linear layers.

    Args:
        linears: The linear layers of all blocks: what zeros are put into.
        products: The two products of attention, with softmax.
        rest: LayerNorm, GELU, residuals.
        ends: Everything outside blocks: patch embedding, last norm, head.
        sparse_linears: The linear layers with zeros.
    """

    linears: float
    products: float
    rest: float
    ends: float
    sparse_linears: float

    @property
    def fixed(self) -> float:
        """The fraction of the dense time that zeros cannot touch."""
        total = self.linears + self.products + self.rest + self.ends
        return 1 - self.linears / total

    @property
    def linear_gain(self) -> float:
        """How many times faster the linear layers get."""
        return self.linears / self.sparse_linears if self.sparse_linears > 0 else float("inf")


@dataclass(frozen=True)
class Check:
    """A prediction beside the whole model, timed in the same rounds."""

    form: str
    predicted_ms: float
    measured_ms: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted_ms / self.measured_ms


@dataclass(frozen=True)
class Explanation:
    """The answer to one question.

    Args:
        dense: The model without zeros.
        sparse: The model with the zeros that were asked about.
        shares: Where the time goes; None for an engine that runs whole blocks only, so that no part can be timed.
        checks: Predictions against the whole model, if asked for.
        others: What else could be done, and what it would bring.
    """

    dense: Prediction
    sparse: Prediction
    shares: Shares | None
    checks: tuple[Check, ...] = ()
    others: tuple[Prediction, ...] = ()


def explain(bench: Bench, asked: Form, *, others: Sequence[Form] = (), verify: bool = False) -> Explanation:
    """Measure the pieces that a prediction takes, and put it together.

    Args:
        bench: Holds the model.
        asked: The form with zeros.
        others: Forms to compare with; one that fails carries its reason.
        verify: Time the whole model beside its pieces.

    Raises:
        EngineError: The engine fails on a piece of the form asked about.
    """
    blocks, dense = pieces.kinds(bench.workshop.model), asked.dense
    kinds = Counter(blocks)
    wholes: dict[Form, Combination] = {}
    if verify:
        wholes = {form: {form.timed(tuple(range(len(blocks)))): 1.0} for form in (dense, asked)}
    whole_only = Selection.parse(asked.engine).traits.whole_blocks
    parts = {} if whole_only else _parts(dense, asked, kinds)
    combinations: list[Combination] = [
        dense.whole(kinds),
        asked.whole(kinds),
        *parts.values(),
        *wholes.values(),
    ]
    rounds = bench.rounds([timed for combination in combinations for timed in combination])
    ms = {form: value_ms(form.whole(kinds), rounds) for form in (dense, asked)}
    gain = compared(dense.whole(kinds), asked.whole(kinds), rounds, bench.settings.seed)
    return Explanation(
        Prediction(dense.engine, dense.what, ms[dense]),
        Prediction(asked.engine, asked.what, ms[asked], gain),
        None if whole_only else Shares(**{name: value_ms(part, rounds) for name, part in parts.items()}),
        tuple(Check(form.what, ms[form], value_ms(whole, rounds)) for form, whole in wholes.items()),
        tuple(_predict(bench, form, dense, kinds) for form in others),
    )


def _parts(dense: Form, sparse: Form, kinds: Mapping[int, int]) -> dict[str, Combination]:
    """The combinations behind `Shares`."""
    by_kind: dict[str, Callable[[int], Combination]] = {
        "linears": lambda kind: dense.block(kind, part="linears"),
        "products": lambda kind: added((1, dense.block(kind)), (-1, dense.block(kind, part="without products"))),
        "rest": lambda kind: added(
            (1, dense.block(kind, part="without products")), (-1, dense.block(kind, part="linears"))
        ),
        "sparse_linears": lambda kind: added(
            (1, dense.block(kind, part="linears")), (-1, dense.block(kind)), (1, sparse.block(kind))
        ),
    }
    over_blocks = {
        name: added(*((count, part(kind)) for kind, count in kinds.items())) for name, part in by_kind.items()
    }
    return {"ends": dense.ends} | over_blocks


def _predict(bench: Bench, form: Form, dense: Form, kinds: Mapping[int, int]) -> Prediction:
    """Another form beside the dense one; a failure becomes its reason."""
    whole, reference = form.whole(kinds), dense.whole(kinds)
    try:
        rounds = bench.rounds([*reference, *whole])
    except OvitError as error:
        return Prediction(form.engine, form.what, error=error.message)
    gain = compared(reference, whole, rounds, bench.settings.seed)
    return Prediction(form.engine, form.what, value_ms(whole, rounds), gain)
