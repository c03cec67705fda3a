#!/usr/bin/env bash
# Writes the software bill of materials (CycloneDX) of what the image holds to the file that is given; `make sbom`.
# It is made of the lock file: the same lock file gives the same text.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mkdir -p "$(dirname "$1")"
# The warning is that a lock file does not tell which package needs which other.
PYTHONWARNINGS=ignore .cache/sbom/bin/python -m cyclonedx_py requirements --output-reproducible \
    --pyproject=pyproject.toml --mc-type=application --output-file="$1" requirements.lock
