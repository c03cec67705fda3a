#!/usr/bin/env bash
# Runs the tests with each supported Python that this machine has; `make test-all-pythons`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=.venv/bin/uv
failed=()
for version in 3.11 3.12 3.13; do
    if ! python=$("$uv" python find --system --no-python-downloads "$version" 2>/dev/null); then
        echo "Python $version: not found, left out"
        continue
    fi
    echo "Python $version: $python"
    venv=.cache/python-$version
    "$uv" venv --quiet --clear --python "$python" "$venv"
    "$uv" pip sync --quiet --python "$venv/bin/python" --require-hashes requirements-dev.lock
    "$uv" pip install --quiet --python "$venv/bin/python" --no-build-isolation --no-deps -e .
    "$venv/bin/python" -m pytest "$@" || failed+=("$version")
done

if ((${#failed[@]})); then
    echo "the tests fail with Python ${failed[*]}" >&2
    exit 1
fi
