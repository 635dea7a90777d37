# The farm's image: the same for the front and the workers (see docker-compose.yaml).
FROM python:3.12-slim AS build
COPY requirements.lock requirements-s3.lock /tmp/
RUN python -m venv /opt/farm/.venv \
    && /opt/farm/.venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/requirements.lock -r /tmp/requirements-s3.lock

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --home-dir /opt/farm --shell /usr/sbin/nologin farm \
    && mkdir -p /opt/farm/data/files \
    && chown farm:farm /opt/farm/data /opt/farm/data/files
COPY --from=build /opt/farm/.venv /opt/farm/.venv
COPY pyproject.toml Procfile farm /opt/farm/
COPY launcher /opt/farm/launcher
COPY shared /opt/farm/shared
COPY simulator /opt/farm/simulator
COPY web /opt/farm/web
COPY workers /opt/farm/workers
WORKDIR /opt/farm
ENV PATH=/opt/farm/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 FARM_DATA_DIR=/opt/farm/data
USER farm
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["gunicorn", "-c", "python:web.gunicorn_conf"]
