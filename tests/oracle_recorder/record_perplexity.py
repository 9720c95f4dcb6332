"""Record what llama.cpp's own llama-perplexity says of the demo model, for tests/evaluate/test_evaluate_files.py.

Build it as record_imatrix.py says, with `--target llama-perplexity`, then

    .venv/bin/python tests/oracle_recorder/record_perplexity.py /tmp/build/bin

Written to tests/evaluate/data/llama_perplexity.json: the tokens of all chunks, and the statistics of the demo model in
Q4_K_M against f32, once as the tool computes by default ("usual"), once with keys and values in f32 and without flash
attention ("wide"). The perplexity of f32 is that of the run that writes the logits: the file that it writes keeps no
log-probability below that of the likeliest token less 16, and what the second run says of f32 comes from there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from studio.checkpoints.convert import convert_to_gguf  # noqa: E402
from studio.quantize.custom import tier_of  # noqa: E402
from studio.quantize.writer import quantize  # noqa: E402

CHUNK, CHUNKS = 128, 12
SETTINGS = {"usual": [], "wide": ["-fa", "off", "-ctk", "f32", "-ctv", "f32"]}
WANTED = {
    "candidate_perplexity": r"Mean PPL\(Q\) +: +([\d.]+)",
    "kl_mean": r"Mean +KLD: +([\d.]+)",
    "kl_mean_error": r"Mean +KLD: +[\d.]+ ± +([\d.]+)",
    "kl_median": r"Median +KLD: +([\d.]+)",
    "kl_p99": r"99\.0% +KLD: +([\d.]+)",
    "kl_max": r"Maximum KLD: +([\d.]+)",
    "same_top_percent": r"Same top p: +([\d.]+)",
}


def main(tools: Path) -> None:
    lines = (ROOT / "assets" / "demo-heldout.jsonl").read_text(encoding="utf-8").splitlines()
    text = "\n".join(f"{entry['prompt']} {entry['answer']}" for entry in map(json.loads, lines))
    recorded = {"chunk": CHUNK, "chunks": CHUNKS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(text, encoding="utf-8")
        reference = convert_to_gguf(ROOT / "assets" / "demo-model", folder / "demo.gguf", outtype="f32")
        (candidate,) = quantize(reference, [tier_of("Q4_K_M")], folder)
        for setting, options in SETTINGS.items():
            tool = [tools / "llama-perplexity", "-c", str(CHUNK), "-t", "1", *options]
            base = ["--kl-divergence-base", folder / "logits"]
            first = said([*tool, "-m", reference, "-f", folder / "text.txt", "--chunks", str(CHUNKS), *base])
            second = said([*tool, "-m", candidate, *base, "--kl-divergence"])
            numbers = {key: float(re.search(pattern, second)[1]) for key, pattern in WANTED.items()}
            numbers["reference_perplexity"] = float(re.search(r"Final estimate: PPL = ([\d.]+)", first)[1])
            recorded[setting] = numbers
        start = len("_logits_") + 3 * 4  # tokens in a chunk, size of the vocabulary, chunks
        tokens = np.fromfile(folder / "logits", np.int32, CHUNK * CHUNKS, offset=start)
        recorded["tokens"] = tokens.tolist()
    out = ROOT / "tests" / "evaluate" / "data" / "llama_perplexity.json"
    out.write_text(json.dumps(recorded) + "\n")


def said(command: list[object]) -> str:
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


if __name__ == "__main__":
    main(Path(sys.argv[1]))
