"""The command line: one verb a file; each parses, calls one function and renders what came back.

    ovit-deploy prune --recipe recipes/deit_75.yaml
    ovit-deploy export --onnx
    ovit-deploy bench --engine deepsparse

stdout carries the result (``--json`` for machines), stderr the progress. Exit codes: 0 done, 1 an error that names its
remedy, 2 wrong usage, 3 too noisy a machine for ``bench``, 4 slower than what ``bench --against`` compares with, 130
interrupted, 143 terminated; a run that was interrupted or terminated is saved, and can be resumed.
"""

import sys
from importlib.metadata import version

from cyclopts import App, CycloptsError, Parameter

from ovit_deploy.cli import common, render
from ovit_deploy.cli.bench import bench
from ovit_deploy.cli.compare import compare
from ovit_deploy.cli.engines import engines
from ovit_deploy.cli.evaluate import evaluate
from ovit_deploy.cli.expand import expand
from ovit_deploy.cli.explain import explain
from ovit_deploy.cli.export import export
from ovit_deploy.cli.models import models
from ovit_deploy.cli.prune import prune
from ovit_deploy.cli.qualify import qualify
from ovit_deploy.cli.recipe import recipe
from ovit_deploy.cli.report import report
from ovit_deploy.cli.sensitivity import sensitivity
from ovit_deploy.cli.train import train
from ovit_deploy.errors import InterruptedRunError, OvitError, is_out_of_memory

app = App(
    name="ovit-deploy",
    help="Prune vision transformers with oViT, export sparse ONNX, measure the speed-up on real engines.",
    version=lambda: version("ovit-deploy"),
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=(), consume_multiple=False),
)
VERBS = (prune, export, bench, explain, report, train, evaluate, compare, sensitivity, models, qualify)
for number, verb in enumerate(VERBS):
    app.command(verb, sort_key=number)
app.command(engines)
app.command(expand)
app.command(recipe)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    rank = common.started_rank()
    who = "" if rank is None else f"rank {rank}: "
    if rank:
        render.only_errors()
    try:
        if rank is not None and (arguments or sys.argv[1:])[:1] not in (["prune"], ["train"]):
            raise OvitError("torchrun: only prune and train share their work", "start it without torchrun")
        app(arguments, exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(2)
    except InterruptedRunError as error:
        if not rank:
            render.error(error.message, f"go on with {error.hint}")
        sys.exit(128 + error.signal)
    except OvitError as error:
        render.error(f"{who}{error.message}", error.hint)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        render.error(f"{who}{where}{error.strerror or error}", "check the path, its permissions and the free space")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        render.error(f"{who}memory runs out", "lower training.batch_size in the recipe, or --memory-budget")
        sys.exit(1)
    except KeyboardInterrupt:
        render.error("interrupted", "")
        sys.exit(130)
