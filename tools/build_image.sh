#!/usr/bin/env bash
# Builds the container image with docker, podman or buildah, whichever works here; `make image`.
# From the environment: ENGINE, IMAGE (name and tag), PYTHON_IMAGE (the base), SOURCE_URL,
# DOCUMENTATION_URL (for the labels). Arguments are passed on to the engine's build command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

engine=${ENGINE:-}
if [[ -z $engine ]]; then
    # docker's client is often installed without an engine to talk to, so it is asked.
    if docker info >/dev/null 2>&1; then
        engine=docker
    elif command -v podman >/dev/null; then
        engine=podman
    elif command -v buildah >/dev/null; then
        engine=buildah
    else
        echo "no docker engine answers here, and there is neither podman nor buildah" >&2
        exit 1
    fi
fi

options=()
# Podman and buildah would write an OCI image, a format without health checks.
[[ $engine == docker ]] || options+=(--format=docker)
for name in PYTHON_IMAGE SOURCE_URL DOCUMENTATION_URL; do
    [[ -z ${!name:-} ]] || options+=("--build-arg=$name=${!name}")
done

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' exporter/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
image=${IMAGE:-azure-batch-exporter:$version}

"$engine" build "${options[@]}" --tag "$image" \
    --build-arg="VERSION=$version" \
    --build-arg="REVISION=$revision" \
    --build-arg="CREATED=$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
    "$@" .
echo "built $image with $engine"
