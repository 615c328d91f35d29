"""Its presence puts this folder on the path: tests write ``from cases import tiny_vit``, ``import oracles``.

What tests ask of a benchmark is not its times, so the machine may be busy: they run beside each other.
"""

import os

from hypothesis import settings

# New examples on every developer's machine; the same ones where a failure would stop somebody else's work.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

os.environ["OVIT_DEPLOY_ALLOW_NOISE"] = "1"
