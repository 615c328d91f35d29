from pathlib import Path

import pytest

from ovit_deploy.bench import hardware, noise
from ovit_deploy.bench.noise import Counters
from ovit_deploy.bench.results import Row
from ovit_deploy.errors import NoiseError

STAT = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 {} 0 0 {} 0 0 0 {} 0 0\ncpu1 0 0 10 90 0 0 0 0 0 0\nintr 5\n"


def row(*, waited: float | None = 0.0, clock_mhz: tuple[float, ...] = ()) -> Row:
    return Row("vit", "onnxruntime", "dense", 0.0, 1, 1, waited=waited, clock_mhz=clock_mhz)


def test_the_kernels_counters_are_read_for_the_cores_we_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "usable", lambda: [0])
    (tmp_path / "stat").write_text(STAT.format(30, 60, 10))
    assert noise.count(tmp_path / "stat").cores == {0: (40, 10, 100)}
    assert noise.count(tmp_path / "missing").cores == {}


def test_how_busy_cores_were_is_what_came_between_two_counts() -> None:
    before = Counters({0: (40, 0, 100), 1: (10, 0, 100)}, 0.0, 0.0)
    after = Counters({0: (90, 0, 200), 1: (10, 0, 200)}, 0.0, 1.0)
    assert noise.busy_cores(before, after) == {0: 0.5, 1: 0.0}


def test_the_idlest_cores_come_first_and_second_threads_of_a_core_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "siblings", lambda core: str(core % 2))
    busy = {0: 0.5, 1: 0.0, 2: 0.1, 3: 0.05}
    assert noise.idlest(busy, 1) == (1,)
    assert noise.idlest(busy, 2) == (1, 2)
    assert noise.idlest(busy, 4) == (1, 2, 3, 0)
    assert noise.idlest(busy, 5) == ()


def test_a_look_names_real_cores() -> None:
    cores, busy = noise.look(1, seconds=0.05)
    assert set(cores) <= set(hardware.usable())
    assert busy is None or 0 <= busy <= 1


def test_busy_cores_are_refused_with_the_limit_and_the_way_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "quota_cores", lambda: None)
    noise.require_quiet_start(0.2, 1)
    noise.require_quiet_start(None, 1)
    with pytest.raises(NoiseError, match=r"the idlest core is busy .* 30% of the time \(limit 25%\)") as raised:
        noise.require_quiet_start(0.3, 1)
    assert "--allow-noise" in raised.value.hint
    assert raised.value.exit_code == 3


def test_a_quota_smaller_than_the_threads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "quota_cores", lambda: 1.5)
    noise.require_quiet_start(0.0, 1)
    with pytest.raises(NoiseError, match=r"a quota of 1\.5 cores for 2 threads"):
        noise.require_quiet_start(0.0, 2)


@pytest.mark.parametrize(
    ("after", "rows", "reason"),
    [
        (Counters({0: (50, 1, 100)}, 0.1, 10.0), [row(waited=0.05)], None),
        (Counters({0: (50, 6, 100)}, 0.0, 10.0), [row()], "the hypervisor took 6% of the cores' time (limit 5%)"),
        (Counters({0: (50, 0, 100)}, 2.0, 10.0), [row()], "held the processes back for 20%"),
        (Counters({0: (50, 0, 100)}, 0.0, 10.0), [row(), row(waited=0.3)], "waited for a core for 30%"),
        (Counters({0: (50, 0, 100)}, 0.0, 10.0), [row(clock_mhz=(2000, 3000))], "clock changed by 50%"),
    ],
)
def test_what_disturbed_a_benchmark_is_judged_by_its_limit(
    after: Counters, rows: list[Row], reason: str | None
) -> None:
    found = noise.judge(Counters({0: (0, 0, 0)}, 0.0, 0.0), after, 0.1, rows)
    assert [reason in text for text in found.reasons] == ([True] if reason else [])


def test_what_the_system_does_not_tell_is_none_and_no_reason() -> None:
    nothing = Counters({}, 0.0, 5.0)
    found = noise.judge(nothing, nothing, None, [row(waited=None)])
    assert (found.stolen, found.throttled, found.waited, found.clock_spread, found.reasons) == (None,) * 4 + ((),)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_quota_is_read_from_both_kinds_of_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(hardware, "cgroup_folders", lambda: [tmp_path, tmp_path / "missing"])
    assert hardware.quota_cores() == expected
