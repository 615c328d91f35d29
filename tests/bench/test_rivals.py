from ovit_deploy.bench import rivals


def row(engine: str, sparsity: float, ms: float | None) -> dict:
    return {"engine": engine, "sparsity": sparsity, "latency": None if ms is None else {"median_ms": ms}}


ROWS = [
    row("deepsparse", 0.0, 40),
    row("deepsparse", 0.75, 20),
    row("openvino", 0.0, 30),
    row("openvino", 0.75, 29),
    row("ovit", 0.0, None),
    row("ovit", 0.75, 10),
]


def test_the_fastest_dense_one_has_no_zeros_and_did_not_fail() -> None:
    assert rivals.fastest_dense(ROWS) is ROWS[2]
    assert rivals.fastest_dense([ROWS[1]]) is None


def test_deepsparse_is_at_its_best_with_as_many_zeros() -> None:
    assert rivals.fastest_deepsparse([*ROWS, row("deepsparse", 0.75, 18)], 0.75) == row("deepsparse", 0.75, 18)
    assert rivals.fastest_deepsparse(ROWS, 0.5) is None


def test_ratios_are_of_medians() -> None:
    assert rivals.times_as_fast(ROWS[5], ROWS[2]) == 3
    assert rivals.times_as_fast(ROWS[4], ROWS[2]) is None
    assert rivals.times_as_fast(ROWS[5], None) is None
