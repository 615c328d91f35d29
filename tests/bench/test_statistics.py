import numpy as np
import pytest

from ovit_deploy.bench.statistics import summarize


def test_a_summary_is_over_all_runs_of_all_blocks() -> None:
    blocks_ms = [[1.0, 2.0, 9.0], [4.0, 5.0]]
    found = summarize(blocks_ms, batch_size=2)
    runs_ms = np.concatenate(blocks_ms)
    assert found.num_runs == 5
    assert found.median_ms == np.median(runs_ms)
    assert found.p90_ms == pytest.approx(np.quantile(runs_ms, 0.9))
    assert found.p99_ms == pytest.approx(np.quantile(runs_ms, 0.99))
    assert found.min_ms == 1
    assert found.images_per_s == pytest.approx(2 * 5 / 0.021)
