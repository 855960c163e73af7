# The official SGLang image plus this package. Build from the repository root:
#   docker build -f docker/gpu.Dockerfile -t soft-sglang:gpu .
ARG SGLANG_IMAGE=lmsysorg/sglang:v0.5.23

FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements/build.txt requirements/
RUN pip install --no-cache-dir -r requirements/build.txt
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${SGLANG_IMAGE}
# The image's Python is the system's own, which pip leaves alone unless told otherwise.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --no-deps /wheels/*.whl \
    && useradd --create-home --home-dir /cache --uid 10001 soft
USER 10001
# Home and volume in one: models, compiled kernels and everything else worth keeping.
WORKDIR /cache
VOLUME ["/cache"]
EXPOSE 30000
# A large model takes minutes to load; failures before that do not count. /health has a token
# generated where nothing else is running, and SGLang gives that 20 seconds.
HEALTHCHECK --interval=30s --timeout=25s --start-period=30m --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:30000/health', timeout=24)"]
ENTRYPOINT ["python3", "-m", "soft_sglang.launch_server", "--host", "0.0.0.0", "--port", "30000"]
