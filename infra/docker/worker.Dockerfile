# Ray's head and workers: everything that trains, searches and exports.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
# For GPUs: https://download.pytorch.org/whl/cu130 (torch's wheels bring CUDA's libraries; the node
# brings the driver).
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /source
RUN python -m venv /opt/inn_automl
ENV PATH=/opt/inn_automl/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY LICENSE pyproject.toml README.md infra/constraints.txt ./
# By itself: the layer of gigabytes is built again only when its pin changes.
RUN grep -E '^torch(vision)?==' constraints.txt > torch.txt \
    && pip install -c constraints.txt --index-url "${TORCH_INDEX}" \
        --extra-index-url https://pypi.org/simple -r torch.txt
COPY inn_automl inn_automl
COPY services services
COPY workers workers
RUN pip install -c constraints.txt ".[worker]" && pip uninstall --yes pip

FROM python:${PYTHON_VERSION}-slim
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="inn_automl worker" \
      org.opencontainers.image.description="Ray node that trains, searches and exports" \
      org.opencontainers.image.version="${VERSION}"
# Mount points: a new volume takes the owner of the folder that it covers.
RUN groupadd --gid 10001 inn && useradd --uid 10001 --gid 10001 --create-home inn \
    && install --directory --owner=10001 --group=10001 /scratch /var/lib/ray
COPY --from=build /opt/inn_automl /opt/inn_automl
ENV PATH=/opt/inn_automl/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    TMPDIR=/scratch \
    MPLCONFIGDIR=/tmp/matplotlib MLFLOW_DISABLE_TELEMETRY=true \
    RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /scratch
EXPOSE 6379 8265
# The node's own agent; it answers on the head and on a worker alike.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:52365/api/local_raylet_healthz', timeout=4)"]
CMD ["ray", "start", "--head", "--block", "--dashboard-host", "0.0.0.0"]
