# A Hugging Face Docker Space (with ESPALIER_AUTH as a secret), or any machine:
# docker run -p 7860:7860 -v espalier:/data -e ESPALIER_AUTH=USER:PASSWORD IMAGE
FROM python:3.11-slim

# llama.cpp computes with OpenMP, whose library slim images lack.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*

# The user that Spaces run as; /data is the one directory that keeps anything, mount a volume there.
RUN useradd --create-home --uid 1000 espalier && install -d -o 1000 /data
ENV ESPALIER_HOME=/data/espalier \
    HF_HOME=/data/huggingface \
    PYTHONUNBUFFERED=1
WORKDIR /home/espalier/app

COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt && python -c "import xllamacpp"

COPY --chown=1000 . .
USER 1000
EXPOSE 7860
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860", "--no-browser"]
