#!/usr/bin/env bash
# Makes the environment in which tests/integrations/test_sparseml.py runs: a real SparseML 1.8.0 (Python 3.11), torch,
# and what our pruners need beside it. Then:
#
#   tests/integrations/make_sparseml_env.sh ENV && OVIT_DEPLOY_SPARSEML_ENV=ENV pytest -m slow tests/integrations
set -euo pipefail
env=${1:?usage: make_sparseml_env.sh FOLDER}
root=$(cd "$(dirname "$0")/../.." && pwd)
"${PYTHON:-python3.11}" -m venv "$env"
"$env/bin/pip" install -q "torch==2.13.0" "sparseml==1.8.0" "sparsezoo==1.8.1" "setuptools<81" "numba>=0.61"
"$env/bin/pip" install -q --no-deps "$root" # its pins of numpy and pydantic are newer than SparseML's
NM_DISABLE_ANALYTICS=1 "$env/bin/python" -c "import ovit_deploy.integrations.sparseml"
