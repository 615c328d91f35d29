"""Where engines run, and the checks of ``bench`` on itself: ``--calibrate`` and ``--own-tool``."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovit_deploy.cli import render
from ovit_deploy.cli.bench_watch import watching
from ovit_deploy.errors import OvitError

if TYPE_CHECKING:
    from ovit_deploy.bench.calibration import Calibration
    from ovit_deploy.bench.own_tool import Comparison
    from ovit_deploy.bench.settings import Settings
    from ovit_deploy.bench.source import Source
    from ovit_deploy.bench.subject import Subject
    from ovit_deploy.bench.suite import LatencySuite


@dataclass(frozen=True)
class Placement:
    """The cores that engines are bound to (none: wherever the system likes), and how busy they were just before."""

    cores: tuple[int, ...]
    busy: float | None


def place(suite: "LatencySuite", *, allow_noise: bool) -> Placement:
    """The idlest cores for a suite.

    Raises:
        OvitError: it wants more cores than there are.
        NoiseError: they are busy with other work, and that was not allowed.
    """
    from ovit_deploy.bench import hardware, noise

    wanted = max(suite.threads) * streams(suite, max(suite.threads))
    hardware.require_cores(wanted)
    cores, busy = noise.look(wanted)
    if not allow_noise:
        noise.require_quiet_start(busy, wanted)
    elif busy is not None and busy > noise.MAX_BUSY:
        render.warning(f"the cores are busy with other work for {busy:.0%} of the time; trust ratios only")
    return Placement(cores if suite.pin else (), busy)


def streams(suite: "LatencySuite", threads: int) -> int:
    """Processes at once: as many as fill the cores, but where a suite says how many, or the scenario has one."""
    from ovit_deploy.bench import hardware

    if suite.scenario != "offline":
        return 1
    return suite.streams or max(1, hardware.usable_cores() // threads)


def settings(suite: "LatencySuite", threads: int, cores: tuple[int, ...]) -> "Settings":
    """How a suite measures with this number of threads."""
    from ovit_deploy.bench.settings import Settings

    return Settings(
        engines=suite.engines,
        dense_only=suite.dense_only,
        threads=threads,
        duration_s=suite.duration_s,
        iterations=suite.iterations,
        seed=suite.seed,
        timeout_s=suite.timeout_s,
        processes=suite.processes,
        scenario=suite.scenario,
        rate=suite.rate,
        streams=streams(suite, threads),
        cores=cores,
        evidence=suite.evidence,
    )


@dataclass(frozen=True)
class Check:
    """One check of a suite's first engine, model, batch size and number of threads, or of each engine."""

    suite: "LatencySuite"
    sources: "list[Source]"
    folder: Path
    allow_noise: bool
    output: Path | None
    json: bool

    def calibrate(self, runs: int, planted: float) -> None:
        """The first engine against itself."""
        from ovit_deploy.bench import noise
        from ovit_deploy.bench.calibration import calibrate

        placement = place(self.suite, allow_noise=self.allow_noise)
        subject, settings = self._prepare(placement)
        engine = self.suite.engines[0]
        render.note(
            f"{subject.name} on {engine}: {runs} benchmarks against itself, {settings.processes} process(es) each"
        )
        began = noise.count()
        with watching() as watch:
            found = calibrate(subject, engine, settings, watch, runs=runs, planted=planted)
        disturbed = noise.judge(began, noise.count(), placement.busy, ())
        about = {"model": subject.name, "engine": engine, "runs": runs, "noise": asdict(disturbed)}
        self._write("calibration", {**about, **asdict(found)}, "calibration.json")
        if not self.json:
            _show_calibration(found)

    def own_tool(self) -> None:
        """Every engine against the tool that comes with it."""
        from ovit_deploy.bench.own_tool import compare_all

        subject, settings = self._prepare(place(self.suite, allow_noise=self.allow_noise))
        with watching() as watch:
            found = compare_all(subject, settings, watch, folder=self.folder)
        comparisons = [asdict(one) for one in found]
        self._write("own_tool", {"model": subject.name, "comparisons": comparisons}, "own_tool.json")
        if not self.json:
            _show_comparisons(found)

    def _prepare(self, placement: Placement) -> "tuple[Subject, Settings]":
        from ovit_deploy.bench.subject import prepare

        if len(self.sources) > 1 or len(self.suite.batch_sizes) > 1 or len(self.suite.threads) > 1:
            raise OvitError("several models or sizes: a check takes one", "give --model, --batch-size and --threads")
        subject = prepare(
            self.sources[0], batch_size=self.suite.batch_sizes[0], seed=self.suite.seed, folder=self.folder
        )
        return subject, settings(self.suite, self.suite.threads[0], placement.cores)

    def _write(self, kind: str, value: dict, name: str) -> None:
        from ovit_deploy.bench import hardware, results

        path = self.output or Path(name)
        machine = hardware.describe()
        result = results.document(kind, self.suite.model_dump(), machine, (), **value)
        results.write(path, result)
        render.as_json(result) if self.json else render.line(f"wrote {path}")


def _show_calibration(found: "Calibration") -> None:
    rows = [("the same against itself", *_verdicts(found.same), f"{found.false_rate:.1%} false")]
    if found.measured is not None:
        planted = f"slowed by {found.planted:.1%}, measured {found.measured:.1%}"
        rows.append((planted, *_verdicts(found.slowed), f"{found.found_rate:.1%} found"))
    render.table("verdicts", ("contestants", "faster", "slower", "equivalent", "inconclusive", "rate"), rows)
    render.line(
        f"false verdicts: {found.false_rate:.1%}; were one in twenty false, chance would give as many or more with "
        f"probability {found.surprise:.2g}"
    )
    render.line(f"a difference of {found.detectable:.1%} would be found 19 times in 20 on this machine, as it is now")
    render.line(f"medians of equal processes spread by {found.start_spread:.1%} (standard deviation)")


def _verdicts(found: list) -> list[int]:
    names = [one.verdict for one in found]
    return [names.count(name) for name in ("faster", "slower", "equivalent", "inconclusive")]


def _show_comparisons(found: "list[Comparison]") -> None:
    columns = ("engine", "its own tool", "its median ms", "our median ms", "ours / its", "by round")
    rows = [
        (one.engine, one.tool, "-", "-", "-", one.error)
        if one.error
        else (
            one.engine,
            one.tool,
            f"{one.tool_ms:.3f}",
            f"{one.our_ms:.3f}",
            f"{one.ratio:.3f}",
            ", ".join(f"{ratio:.2f}" for ratio in one.ratios),
        )
        for one in found
    ]
    render.table("our medians against each engine's own tool, same file, in turns", columns, rows)
