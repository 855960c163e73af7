# SGLang's gateway, in front of several servers. Build from the repository root:
#   docker build -f docker/gateway.Dockerfile -t soft-sglang:gateway .
FROM python:3.12-slim
COPY requirements/gateway.txt /tmp/gateway.txt
RUN pip install --no-cache-dir --no-deps -r /tmp/gateway.txt \
    && useradd --no-create-home --uid 10001 soft
USER 10001
EXPOSE 30000 29000
# Healthy once it has a worker to send requests to.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:30000/readiness', timeout=4)"]
ENTRYPOINT ["python3", "-m", "sglang_router.launch_router", "--host", "0.0.0.0", "--port", "30000"]
