# Any image with Python 3.11 or newer and its venv module; pin yours by digest.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder

WORKDIR /src

# Whatever is fetched is fetched by hash; the build backend lives in an environment of its own, and
# pip there too, so that neither is in the image's.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes --requirement=requirements-build.lock \
    && python3 -m venv --without-pip /opt/azure-batch-exporter \
    && /build/bin/pip --python=/opt/azure-batch-exporter/bin/python install --no-cache-dir \
        --only-binary=:all: --require-hashes --requirement=requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN /build/bin/pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir=/dist . \
    && /build/bin/pip --python=/opt/azure-batch-exporter/bin/python install --no-cache-dir \
        --no-index --no-deps /dist/*.whl


FROM ${PYTHON_IMAGE}

ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE_URL=
ARG DOCUMENTATION_URL=${SOURCE_URL}

LABEL org.opencontainers.image.title="azure-batch-exporter" \
      org.opencontainers.image.description="Prometheus exporter for Azure Batch" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE_URL}" \
      org.opencontainers.image.url="${SOURCE_URL}" \
      org.opencontainers.image.documentation="${DOCUMENTATION_URL}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="The azure-batch-exporter authors"

COPY --from=builder /opt/azure-batch-exporter /opt/azure-batch-exporter

# The root file system may be read-only: everything was compiled above, and nothing is written.
ENV PATH=/opt/azure-batch-exporter/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AZURE_BATCH_EXPORTER_REVISION=${REVISION}

# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532

EXPOSE 10225

HEALTHCHECK --interval=30s --timeout=6s --start-period=10s CMD ["azure-batch-exporter", "healthcheck"]

ENTRYPOINT ["azure-batch-exporter"]
CMD ["run", "--config.file=/etc/azure-batch-exporter/config.yaml"]
