# An S3-compatible store over a folder: versitygw (Apache 2.0). Adds a user and a folder that the
# user owns.
FROM ghcr.io/versity/versitygw:v1.7.0
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="inn_automl storage" \
      org.opencontainers.image.description="S3 over a folder: versitygw without root" \
      org.opencontainers.image.version="${VERSION}"
RUN mkdir -p /data && chown 10001:10001 /data
ENV VGW_HEALTH=/health VGW_PORT=:7070
USER 10001:10001
EXPOSE 7070
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:7070/health"]
CMD ["posix", "/data"]
