# A device agent: measures latency on the machine it runs on. The base install, no torch.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /source
RUN python -m venv /opt/inn_automl
ENV PATH=/opt/inn_automl/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY LICENSE pyproject.toml README.md infra/constraints.txt ./
COPY inn_automl inn_automl
COPY services services
COPY workers workers
RUN pip install -c constraints.txt . && pip uninstall --yes pip

FROM python:${PYTHON_VERSION}-slim
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="inn_automl device agent" \
      org.opencontainers.image.description="Measures the latency of models on this machine" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --gid 10001 inn && useradd --uid 10001 --gid 10001 --create-home inn
COPY --from=build /opt/inn_automl /opt/inn_automl
ENV PATH=/opt/inn_automl/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
# It serves nothing that could be asked: it is well while it runs as the container's first process,
# and what the coordinator last heard of it is in GET /v1/devices.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import sys; sys.exit(b'agent' not in open('/proc/1/cmdline', 'rb').read().split(b'\\0'))"]
ENTRYPOINT ["inn-automl", "agent"]
CMD ["--help"]
