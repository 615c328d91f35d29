"""Writes traces.json: what SparseML 1.8.0 itself does, step by step. Run in SparseML's environment, with its recipes:

PYTHONPATH=tests/manager PY tests/manager/golden/make_traces.py     PY: tests/integrations/make_sparseml_env.sh
"""

import json
import logging
from pathlib import Path

from network import trace
from sparseml.pytorch.optim import ScheduledModifierManager

logging.disable(logging.CRITICAL)
HERE = Path(__file__).parent

if __name__ == "__main__":
    recipes = json.loads((HERE / "recipes.json").read_text())
    traces = {name: trace(ScheduledModifierManager.from_yaml(text), name) for name, text in recipes.items()}
    lines = [f'"{name}": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n ]" for name, rows in traces.items()]
    (HERE / "traces.json").write_text("{\n " + ",\n ".join(lines) + "\n}\n")
