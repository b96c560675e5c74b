# A Bento in the environment in which it was evaluated. Build context: the folder that `ifas package` made (with bento/).
#   docker build -f infra/bento.Dockerfile --build-arg IFAS_IMAGE=REGISTRY/ifas@sha256:... runs/latest/bento
ARG IFAS_IMAGE=ifas:dev
FROM ${IFAS_IMAGE}
COPY bento/ /bento/
ENV BENTOML_HOME=/tmp/bentoml \
    PYTHONDONTWRITEBYTECODE=1
EXPOSE 3000
ENTRYPOINT []
CMD ["python", "-m", "bentoml", "serve", "/bento", "--host", "0.0.0.0", "--port", "3000"]
