"""``ovit-deploy report``: runs on one page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ovit_deploy import checkpoint
from ovit_deploy.cli import render

if TYPE_CHECKING:
    from ovit_deploy.report.gather import Report

Format = Literal["html", "markdown", "json"]
_ENDINGS: dict[Format, str] = {"html": "html", "markdown": "md", "json": "json"}


def report(
    *run: str,
    format: Format = "html",  # noqa: A002 - the option's name
    out: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
) -> None:
    """Put runs on one page: accuracy against latency, sparsity, schedule, evidence, and how to make them again.

    The page is one file that needs no other and no network; it follows the reader's light or dark colour scheme.
    What a run does not have (an export, latencies) is named, with the command that makes it.

    Example: ovit-deploy report deit_75 deit_90 --out comparison.html

    Args:
        run: Names or folders of runs; by default the newest.
        format: html has pictures; markdown has the same tables; json has all that is known.
        out: The file; by default report.html (.md, .json) of the run, or of this folder for several runs. With - it
            goes to stdout.
    """
    from ovit_deploy.report.gather import gather

    folders = [checkpoint.run_folder(name) for name in run or (None,)]
    found = gather(folders)
    for one in found.runs:
        for lack in one.missing:
            render.note(f"{one.name}: {lack.what}; {lack.command}")
    text = _written(found, format)
    if out is not None and str(out) == "-":
        render.verbatim(text)
        return
    home = folders[0] if len(found.runs) == 1 else Path()
    path = out.expanduser() if out else home / f"report.{_ENDINGS[format]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(path, text)
    render.line(f"wrote {path}")


def _written(found: "Report", form: Format) -> str:
    from ovit_deploy.report.data import as_data
    from ovit_deploy.report.html import html
    from ovit_deploy.report.markdown import markdown
    from ovit_deploy.report.sections import sections

    if form == "json":
        return json.dumps(as_data(found), indent=1) + "\n"
    write = html if form == "html" else markdown
    return write(found.title, found.created, sections(found))
