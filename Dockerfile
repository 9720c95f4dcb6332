# A Hugging Face Docker Space (with ESPALIER_AUTH as a secret), or any machine:
#   docker build -t espalier .                                 on the processor
#   docker build -t espalier --build-arg VARIANT=cu132 .       on an NVIDIA card, whose driver knows CUDA 13.2
#   docker run -p 7860:7860 -v espalier:/data -e ESPALIER_AUTH=USER:PASSWORD espalier
# with `--gpus all` for the card, and `--read-only` for a tree that nothing can write to.
FROM python:3.11-slim

# llama.cpp computes with OpenMP, whose library slim images lack.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*

# The user that Spaces run as; /data is the one directory that keeps anything, mount a volume there.
RUN useradd --create-home --uid 1000 espalier && install -d -o 1000 /data
WORKDIR /home/espalier/app

# torch and llama.cpp are built for each variant, and published by PyTorch and xllamacpp under the same name.
ARG VARIANT=cpu
COPY requirements.txt .
RUN pip install --no-cache-dir --extra-index-url "https://download.pytorch.org/whl/${VARIANT}" -r requirements.txt && \
    if [ "${VARIANT}" != cpu ]; then \
      pip install --no-cache-dir --no-deps --force-reinstall \
        --index-url "https://xorbitsai.github.io/xllamacpp/whl/${VARIANT}" "$(grep -o '^xllamacpp==[^ ]*' requirements.txt)"; \
    else python -c "import xllamacpp"; fi

# What torch brings of CUDA serves llama.cpp too; without a card neither of the last three lines does anything.
ENV ESPALIER_HOME=/data/espalier \
    HF_HOME=/data/huggingface \
    TMPDIR=/data/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LD_LIBRARY_PATH=/usr/local/lib/python3.11/site-packages/nvidia/cu13/lib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

COPY . .
USER 1000
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s --retries=3 \
  CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:7860/health', timeout=8)"]
# SIGTERM, which `docker stop` sends, pauses the jobs; they go on with the next start.
CMD ["sh", "-c", "mkdir -p $TMPDIR && exec python app.py --host 0.0.0.0 --port 7860 --no-browser"]
