# Two images: `api` takes requests and carries no torch, `worker` runs jobs. deploy/README.md says how to build and start them.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES ./
COPY compressor compressor
COPY service service
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM ${PYTHON_IMAGE} AS api-environment
COPY constraints.txt /constraints.txt
COPY --from=wheel /wheel /wheel
RUN python -m venv /opt/bayespress \
    && /opt/bayespress/bin/pip install --no-cache-dir -c /constraints.txt "$(ls /wheel/*.whl)[postgres]"

FROM api-environment AS worker-environment
# The CPU build by default; for NVIDIA GPUs: --build-arg TORCH_INDEX_URL=https://pypi.org/simple
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN /opt/bayespress/bin/pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX_URL}" "$(grep '^torch==' /constraints.txt)" \
    && /opt/bayespress/bin/pip install --no-cache-dir -c /constraints.txt "$(ls /wheel/*.whl)[worker,postgres]"

FROM ${PYTHON_IMAGE} AS runtime
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home bayespress \
    && install --directory --owner=bayespress --group=bayespress /data
ENV PATH=/opt/bayespress/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    BAYESPRESS_HOME=/data \
    BAYESPRESS_PORT=8000
VOLUME /data
EXPOSE 8000
USER bayespress
WORKDIR /home/bayespress
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
ENTRYPOINT ["tini", "--"]
CMD ["bayespress", "serve"]

FROM runtime AS api
COPY --from=api-environment /opt/bayespress /opt/bayespress
ENV BAYESPRESS_WORKERS=0

FROM runtime AS worker
COPY --from=worker-environment /opt/bayespress /opt/bayespress
