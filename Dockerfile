# The server, the worker and the scheduler are one image; the command decides.
FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The lock alone decides this layer, so a change of code does not download anything again.
COPY requirements.lock ./
RUN /venv/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY chatserver ./chatserver
COPY workers ./workers
COPY migrations ./migrations
RUN pip wheel --no-deps --wheel-dir /wheels . && /venv/bin/pip install --no-deps /wheels/*.whl

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 chatserver
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 LOG_FORMAT=json
USER chatserver
WORKDIR /srv/chatserver
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s CMD \
  ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
# Connections are told to move before the process ends; see the shutdown of `serve`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["chatserver"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
