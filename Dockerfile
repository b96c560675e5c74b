# One image for every step, in a KFP pod, a Ray pod or under `bentoml serve` (infra/bento.Dockerfile).
#   docker build --build-arg BASE=python:3.11-slim-bookworm@sha256:... -t REGISTRY/ifas:1 .
# torch comes with its CUDA libraries; for a CPU image pass PyTorch's CPU index as --build-arg TORCH_INDEX=URL.

# Pin it by digest when you build: a tag can change.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG UV_VERSION=0.13.9
ARG TORCH=2.13.0
ARG TORCH_INDEX=
ENV UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    VIRTUAL_ENV=/venv
RUN pip install --no-cache-dir "uv==${UV_VERSION}" \
 && python -m venv "${VIRTUAL_ENV}"
WORKDIR /build
# Packages first: they change less often than the code.
COPY requirements.lock infra/ray-default.lock ./
RUN uv pip install --no-cache ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} "torch==${TORCH}" \
 && uv pip install --no-cache --no-deps -r requirements.lock -r ray-default.lock
COPY LICENSE NOTICE README.md pyproject.toml setup.py ./
COPY ifas/ ifas/
COPY components/ components/
COPY pipelines/ pipelines/
# uv stays in the environment: BentoML calls it when a candidate is packaged.
RUN uv pip install --no-cache --no-deps . "uv==${UV_VERSION}"

FROM ${BASE}
# git: DVC reads the registry. wget: the probes that KubeRay adds to Ray pods call it.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git wget \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 ifas \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin ifas
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    IFAS_HOME=/tmp/ifas \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    RAY_USAGE_STATS_ENABLED=0 \
    BENTOML_DO_NOT_TRACK=True \
    DVC_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1
WORKDIR /scratch
RUN chown 10001:10001 /scratch
# Numeric: Kubernetes can't check `runAsNonRoot` against a name.
USER 10001:10001
HEALTHCHECK NONE
CMD ["ifas", "--help"]
