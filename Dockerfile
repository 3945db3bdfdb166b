# The HTTP API in a container. Written without an engine at hand: checked by hadolint, not yet built.
#   docker build -t customer-panel .
#   docker run -p 127.0.0.1:3000:3000 -e CP_API_KEYS=... -v "$PWD/data:/data:ro" -v panel:/home/panel customer-panel
# Without DATABASE_URL it runs its own PostgreSQL, in the volume.

FROM rust:1.88-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# maturin comes as pyproject.toml asks for it; all else is of the lock, to the hash. The wheel made
# here is named with its own hash, for pip takes nothing without one then.
RUN python3 -m venv /venv \
 && /venv/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && sha256sum /wheels/*.whl > /wheels/sum \
 && sed -E 's|^([^ ]+) +(.+)$|customer-panel[api] @ file://\2 --hash=sha256:\1|' /wheels/sum > /wheels/requirements.txt \
 && cp requirements.lock /wheels/constraints.txt

FROM python:3.13-slim-bookworm
RUN groupadd --system --gid 10001 panel \
 && useradd --system --uid 10001 --gid 10001 --create-home panel
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --require-hashes --requirement /wheels/requirements.txt --constraint /wheels/constraints.txt \
 && rm -r /wheels
USER 10001:10001
WORKDIR /home/panel
# Everybody who reaches the container reaches the API: it asks for CP_API_KEYS, or for CP_ALLOW_NO_AUTH=1.
ENV HOST=0.0.0.0 \
    PORT=3000 \
    IMPORT_ROOTS=/data \
    CP_HOME=/home/panel
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health/ready', timeout=2)"]
ENTRYPOINT ["customer-panel"]
CMD ["serve"]
