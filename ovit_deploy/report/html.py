"""A report as one HTML page: no script, no font, no picture from anywhere else."""

from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined

from ovit_deploy.report.blocks import Picture, Section


def html(title: str, created: str, sections: list[Section]) -> str:
    """The text of the page. All words are escaped; pictures are not, they were when they were drawn."""
    loader = PackageLoader("ovit_deploy.report", package_path="")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["picture"] = lambda value: isinstance(value, Picture)
    environment.filters["kind"] = lambda block: type(block).__name__
    page = environment.get_template("page.html.j2")
    return page.render(title=title, created=created, sections=sections, version=version("ovit-deploy"))
