# One image for worker, Flower, exporter and command line; docs/deploy/image.md says how to build it and how to add tasks.
# Two targets: `brigade` (the last stage, so the default) and `local`, which adds the embedded S3 of docker-compose.yml.
# BASE_IMAGE may be any Debian or Ubuntu with Python of at least 3.11 and its venv module.
ARG BASE_IMAGE=docker.io/library/python:3.13.14-slim-bookworm

# -- build: has pip and is thrown away ---------------------------------------------------------------------------------
# hadolint ignore=DL3006 -- the argument's default is a pinned tag
FROM ${BASE_IMAGE} AS build
WORKDIR /src
# Behind a proxy of one's own: --secret id=pip.conf,src=… and --secret id=ca.pem,src=…, of which nothing stays anywhere.
ENV PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# pip lives apart from what it installs, so that the environment which is shipped has none.
RUN python3 -m venv /opt/tools && python3 -m venv --without-pip /opt/bucket-brigade
COPY requirements-image.lock ./
RUN sed -n '/^# part: image/,/^# part: local/p' requirements-image.lock > /tmp/image.lock \
 && sed -n '/^# part: local/,/^# part: build/p' requirements-image.lock > /tmp/local.lock \
 && sed -n '/^# part: build/,$p' requirements-image.lock > /tmp/build.lock
# Wheels only: nothing is compiled here, so no compiler is needed, and no foreign setup.py runs. The .pyc files are
# written now, for the root file system is read-only later.
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi; \
    /opt/tools/bin/pip install --quiet --require-hashes --only-binary :all: -r /tmp/build.lock \
 && /opt/tools/bin/pip --python /opt/bucket-brigade/bin/python install --quiet \
      --require-hashes --only-binary :all: -r /tmp/image.lock
COPY pyproject.toml README.md LICENSE ./
COPY bridge bridge
COPY tasks tasks
RUN /opt/tools/bin/python -m hatchling build -t wheel -d /tmp/wheel \
 && /opt/tools/bin/pip --python /opt/bucket-brigade/bin/python install --quiet --no-deps --no-index /tmp/wheel/*.whl \
 && /opt/tools/bin/pip --python /opt/bucket-brigade/bin/python check

# -- build-local: moto and what it needs, in a folder of their own, so that they are a layer on top -------------------
FROM build AS build-local
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi; \
    /opt/tools/bin/pip install --quiet --no-deps --target /opt/local \
      --require-hashes --only-binary :all: -r /tmp/local.lock

# -- runtime: what both targets are ------------------------------------------------------------------------------------
# hadolint ignore=DL3006 -- as above
FROM ${BASE_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bucket-brigade" \
      org.opencontainers.image.description="S3 events straight off SQS, run as ordinary Celery tasks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# No pip, neither the base's own nor a way to bring it back (Debian keeps its wheels in /usr/share/python-wheels).
# The numbers of user and group are fixed: Kubernetes' runAsNonRoot looks at the number, and volumes are owned by it.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/pip /usr/local/lib/python3.*/site-packages/pip-* \
      /usr/local/lib/python3.*/ensurepip /usr/lib/python3.*/ensurepip /usr/share/python-wheels \
 && echo 'brigade:x:10001:' >> /etc/group \
 && echo 'brigade:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd \
 && install -d /opt/bucket-brigade/tasks && install -d -o 10001 -g 10001 /var/lib/bucket-brigade
COPY --from=build /opt/bucket-brigade /opt/bucket-brigade
# PYTHONPATH is where one's own tasks go. HOME and TMPDIR are /tmp, the one place a read-only root needs to leave writable.
# Outside its container nobody could ask a health server on 127.0.0.1.
ENV PATH=/opt/bucket-brigade/bin:$PATH \
    PYTHONPATH=/opt/bucket-brigade/tasks \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    HOME=/tmp \
    TMPDIR=/tmp \
    BRIDGE_HEALTH_HOST=0.0.0.0
WORKDIR /opt/bucket-brigade/tasks
USER 10001:10001
EXPOSE 8080 5555
# Process 1 reaps orphans and hands SIGTERM to the worker alone: pool children that got it too would die in mid-task.
ENTRYPOINT ["dumb-init", "--single-child", "--"]
CMD ["celery", "-A", "bridge", "worker"]
# A worker's; whoever runs something else from this image switches it off, as docker-compose.yml does.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["brigade", "health", "--live"]

# -- local: the runtime with moto, for docker-compose.yml --------------------------------------------------------------
FROM runtime AS local
COPY --from=build-local /opt/local /opt/local
ENV PYTHONPATH=/opt/bucket-brigade/tasks:/opt/local
HEALTHCHECK NONE

# -- brigade: the image ------------------------------------------------------------------------------------------------
FROM runtime AS brigade
