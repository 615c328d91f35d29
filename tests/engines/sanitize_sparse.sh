#!/usr/bin/env bash
# Runs the tests of the sparse engine's compiled half under the address and undefined-behaviour sanitizers: some minutes.
#
#     tests/engines/sanitize_sparse.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r ovit_deploy tests pyproject.toml "$work"
cd "$work"
python ovit_deploy/engines/sparse/build.py -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
compiler=${CXX:-c++}
preload="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so) $("$compiler" -print-file-name=libstdc++.so)"
LD_PRELOAD=$preload ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$work \
    python -m pytest -q -p no:cacheprovider tests/engines/test_sparse_native.py "$@"
