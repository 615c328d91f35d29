"""``ovit-deploy engines``: which runtimes are here, and how to get the others."""

from dataclasses import asdict

from cyclopts import App, Parameter

from ovit_deploy.cli import render
from ovit_deploy.engines import ENGINES, environments, inventory
from ovit_deploy.engines.base import Option
from ovit_deploy.errors import EngineError

engines = App(
    name="engines",
    help="List the inference engines, or install one into its own environment.",
    default_parameter=Parameter(negative=()),
)
COLUMNS = ("engine", "version", "reads", "licence")


@engines.default
def list_engines(*, json: bool = False) -> None:
    """List the engines that bench knows: installed or not, version, options, licence; and the CPU's instructions.

    Example: ovit-deploy engines

    Args:
        json: Print the list as JSON.
    """
    from ovit_deploy.bench import hardware

    found = [inventory.status(name) for name in ENGINES]
    machine = hardware.describe()
    cpu = {key: machine[key] for key in ("cpu", "instructions", "usable_cores")}
    if json:
        rows = [asdict(each) | {"present": each.present, "place": each.place and str(each.place)} for each in found]
        render.as_json({"cpu": cpu, "engines": rows})
        return
    rows = [(each.engine, each.version or "absent", each.reads, each.licence) for each in found]
    render.table("engines", COLUMNS, rows)
    render.line()
    for each in found:
        for name, option in each.options.items():
            render.line(f"{each.engine}:{name}={_values(option)}  {option.what}")
    for each in found:
        if not each.present:
            render.line(f"to install {each.engine}: {each.install}")
    for each in found:
        if each.refusal:
            render.line(f"{each.engine} does not run here: {each.refusal}")
    render.line(f"CPU: {cpu['cpu']}, {cpu['usable_cores']} usable cores, {', '.join(cpu['instructions'])}")


@engines.command
def install(engine: str) -> None:
    """Make the environment of an engine that needs one of its own, now and not at the first bench.

    Example: ovit-deploy engines install deepsparse

    Args:
        engine: Its name.
    """
    if engine not in ENGINES:
        raise EngineError(f"no engine {engine!r}", f"one of {', '.join(ENGINES)}")
    if not ENGINES[engine].pins:
        raise EngineError(f"{engine} lives in the environment of ovit-deploy itself", ENGINES[engine].install)
    environments.install(engine, render.note)
    found = inventory.status(engine)
    render.line(f"{engine} {found.version} in {found.place}")


def _values(option: Option) -> str:
    if isinstance(option.default, bool):
        return "true|false"
    return "|".join(option.choices) or "0..1"
