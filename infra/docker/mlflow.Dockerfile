# MLflow over PostgreSQL and S3.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /source
RUN python -m venv /opt/mlflow
ENV PATH=/opt/mlflow/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY infra/constraints.txt ./
RUN pip install -c constraints.txt mlflow "psycopg[binary]" boto3 && pip uninstall --yes pip

FROM python:${PYTHON_VERSION}-slim
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="inn_automl MLflow" \
      org.opencontainers.image.description="MLflow over PostgreSQL and S3" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --gid 10001 inn && useradd --uid 10001 --gid 10001 --create-home inn
COPY --from=build /opt/mlflow /opt/mlflow
# Without job execution it needs a quarter of the memory.
ENV PATH=/opt/mlflow/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
USER 10001:10001
WORKDIR /tmp
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
# The places of data come as environment: MLFLOW_BACKEND_STORE_URI and MLFLOW_ARTIFACTS_DESTINATION.
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--workers", "2"]
