# GPU image of the command `compress` alone; make, the tests and the linters stay outside. Which CUDA and TensorRT fit
# depends on the driver of the machine that runs it, so the base is an argument; Python 3.12 comes with Ubuntu 24.04.
#
#   docker build -t compress .
#   mkdir -p runs
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD/data:/data:ro" -v "$PWD/runs:/work/runs" compress \
#       run --teacher cait_s24 --student deit_tiny --strategy lift --data /data
#
# --user: so that what is written to runs/ is yours. HOME is writable by anyone, for the caches of torch and of timm's
# downloads; to keep those, mount a folder: -v "$HOME/.cache:/home/anyone/.cache".
#
# On a machine without a GPU: docker build --build-arg BASE=ubuntu:24.04 --build-arg EXTRAS=cpu,tensorrt-rtx .
ARG BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04
FROM ${BASE}

ARG EXTRAS=gpu,tensorrt,tensorrt-rtx
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/compress
COPY pyproject.toml README.md LICENSE ./
COPY vitcompress vitcompress
COPY core core
COPY exporters exporters
COPY stages stages
COPY pipeline pipeline
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install ".[${EXTRAS}]"

ENV PATH=/opt/venv/bin:$PATH
# A user given with --user has neither a name nor a home of its own; torch asks for both.
ENV HOME=/home/anyone USER=anyone
RUN useradd --no-create-home --home-dir "$HOME" anyone && mkdir -m 1777 "$HOME" /work
USER anyone
WORKDIR /work
ENTRYPOINT ["compress"]
CMD ["--help"]
