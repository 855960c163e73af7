# The CPU server with the bundled model. Build from the repository root:
#   docker build -f docker/cpu.Dockerfile -t soft-sglang:cpu .
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements requirements
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
# an older supported SGLang, such as 0.5.21; empty: that of requirements/cpu.txt
ARG SGLANG=
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir -r requirements/build.txt \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX_URL}" \
        -r requirements/torch.txt \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps -r requirements/cpu.txt \
    && if [ -n "${SGLANG}" ]; then \
        /opt/venv/bin/pip install --no-cache-dir --no-deps -r "requirements/sglang-${SGLANG}.txt"; fi
COPY . .
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN useradd --create-home --home-dir /cache --uid 10001 soft
USER 10001
WORKDIR /cache
VOLUME ["/cache"]
EXPOSE 30000
HEALTHCHECK --interval=30s --timeout=25s --start-period=5m --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:30000/health', timeout=24)"]
ENTRYPOINT ["python3", "-m", "soft_sglang.launch_server", "--host", "0.0.0.0", "--port", "30000"]
