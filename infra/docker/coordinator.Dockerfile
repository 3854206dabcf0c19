# The coordinator: HTTP API and dispatcher. Neither torch nor Ray.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /source
RUN python -m venv /opt/inn_automl
ENV PATH=/opt/inn_automl/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY LICENSE pyproject.toml README.md infra/constraints.txt ./
COPY inn_automl inn_automl
COPY services services
COPY workers workers
RUN pip install -c constraints.txt ".[service]" && pip uninstall --yes pip

FROM python:${PYTHON_VERSION}-slim
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="inn_automl coordinator" \
      org.opencontainers.image.description="Takes jobs over HTTP and runs them on Ray" \
      org.opencontainers.image.version="${VERSION}"
# /scratch holds uploads under way; a new volume takes its owner.
RUN groupadd --gid 10001 inn && useradd --uid 10001 --gid 10001 --create-home inn \
    && install --directory --owner=10001 --group=10001 /scratch
COPY --from=build /opt/inn_automl /opt/inn_automl
ENV PATH=/opt/inn_automl/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    INN_AUTOML_SCRATCH=/scratch
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/v1/health', timeout=4)"]
CMD ["inn-automl", "coordinator", "--host", "0.0.0.0", "--port", "8080"]
