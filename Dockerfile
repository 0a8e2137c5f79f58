# mission9 in images: the targets cpu (also the default), gpu and mlflow. docs/how-to/containers.md says how they are used.
#
# Neither heredocs nor COPY --link: buildah, which needs no daemon, builds it too. Behind a package mirror, or where the
# network has a certificate of its own: --secret id=pip_conf,src=pip.conf --secret id=ca,src=ca.crt

# Ubuntu 24.04, for Python 3.12 and Java 17. None with CUDA: torch for the GPU brings its own.
ARG BASE_IMAGE=docker.io/library/ubuntu:24.04@sha256:008173c23f95b170204355c12626cb5a965d779a7e1283b09e9cffbb1bf33ca3


FROM ${BASE_IMAGE} AS base
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get upgrade -y \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates openjdk-17-jre-headless python3 tini \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/mission9/bin:$PATH


FROM base AS pip
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/mission9
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build


FROM pip AS torch-cpu
COPY docker/torch-cpu.lock .
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    pip install --no-deps --require-hashes --target /opt/torch -r torch-cpu.lock


FROM pip AS torch-gpu
COPY docker/torch-gpu.lock .
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    pip install --no-deps --require-hashes --target /opt/torch -r torch-gpu.lock


# All but torch, which differs: a layer of its own, so that the rest is there once. setuptools first, since it builds what
# is no wheel (pyspark).
FROM pip AS build
COPY docker/requirements.lock .
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    awk '/^[^ ]/ { wanted = /^setuptools==/ } wanted' requirements.lock > setuptools.lock \
    && pip install --no-deps --require-hashes -r setuptools.lock \
    && pip install --no-deps --require-hashes --no-build-isolation -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps --no-build-isolation . \
    && python -c 'import site; open(f"{site.getsitepackages()[0]}/torch.pth", "w").write("/opt/torch\n")'
COPY docker/jupyter_server_config.json /opt/mission9/etc/jupyter/
COPY docker/entry.sh /opt/mission9/


FROM base AS runtime
ARG CONTAINER_UID=1000
RUN if id ubuntu >/dev/null 2>&1; then userdel --remove ubuntu; fi \
    && useradd --create-home --uid "$CONTAINER_UID" --user-group --shell /bin/bash mission9
COPY --from=build /opt/mission9 /opt/mission9
WORKDIR /work
COPY notebooks notebooks
COPY scripts/subset_data.py scripts/mlflow_ui.py scripts/
COPY src/__init__.py src/feature_extractor.py src/spark_pipeline.py src/
RUN mkdir data dataset mlruns weights && chown mission9:mission9 . data dataset mlruns notebooks notebooks/*
ENV PYTHONUNBUFFERED=1 MLFLOW_DISABLE_TELEMETRY=true
USER ${CONTAINER_UID}
ENTRYPOINT ["tini", "--", "sh", "/opt/mission9/entry.sh"]


# Requests may name what compose publishes and what it calls the service; --name says others.
FROM runtime AS mlflow
ENV WRITTEN=mlruns
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 5000, timeout=4); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
CMD ["python", "scripts/mlflow_ui.py", "--host", "0.0.0.0", "--port", "5000", "--folder", "mlruns", \
     "--name", "localhost:5009", "--name", "127.0.0.1:5009", "--name", "mlflow:5000"]


# Jupyter asks for the token of JUPYTER_TOKEN; without one it makes one and says so in its log.
FROM runtime AS notebook
ENV WRITTEN="data notebooks"
EXPOSE 8888 4040
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8888, timeout=4); c.request('GET', '/api'); exit(c.getresponse().status != 200)"]
CMD ["jupyter", "lab"]


FROM notebook AS gpu
COPY --from=torch-gpu /opt/torch /opt/torch
# A driver older than CUDA 12 (525.60.13) is refused by name when the container starts.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility NVIDIA_REQUIRE_CUDA=cuda>=12.0


FROM notebook AS cpu
COPY --from=torch-cpu /opt/torch /opt/torch
