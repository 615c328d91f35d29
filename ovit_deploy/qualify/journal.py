"""The finished rows of a qualification, a line each, so that a run that was stopped goes on with what is missing."""

import json
from pathlib import Path

from ovit_deploy import json_lines
from ovit_deploy.errors import RunError
from ovit_deploy.qualify.task import Row, Settings


class Journal:
    """Rows in memory and in a file.

    Args:
        path: The file; it and its folder are made where missing.
        settings: Rows of other settings do not mix with these.

    Raises:
        RunError: The file holds rows of other settings, or is none of this form.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = json_lines.whole_lines(path)
        if not lines:
            json_lines.append(path, {"settings": settings.as_dict()})
            return
        try:
            first, *rest = [json.loads(line) for line in lines]
            known = Settings.from_dict(first["settings"])
            self.rows = {row.model: row for row in map(Row.from_dict, rest)}
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: not the journal of a qualification ({error})", "choose another --out") from error
        if known != settings:
            different = [key for key, value in settings.as_dict().items() if known.as_dict()[key] != value]
            raise RunError(
                f"{path}: holds rows of other settings: {', '.join(different)} differ",
                "choose another --out, or the same options as before",
            )

    def add(self, row: Row) -> None:
        """Keep a finished row, at once; it takes the place of an earlier one of that model."""
        json_lines.append(self.path, row.as_dict())
        self.rows[row.model] = row
