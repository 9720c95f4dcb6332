"""Record what llama.cpp's own llama-imatrix measures on the demo model, for tests/quantize/test_quantize_observed.py.

    tar xf llama_cpp_python-0.3.36.tar.gz    # the sdist from PyPI; llama.cpp lies in its vendor folder
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B /tmp/build -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF \\
        -DGGML_NATIVE=OFF -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TOOLS=ON
    cmake --build /tmp/build --target llama-imatrix llama-tokenize -j2
    .venv/bin/python tests/oracle_recorder/record_imatrix.py /tmp/build/bin

Written to tests/quantize/data/llama_imatrix.npz: the tokens of every chunk `[chunks, 128]`, and of every tensor all
counts and every sixteenth column of the sums. The model is converted to f32, and all of it is computed in f32.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from studio.checkpoints.convert import convert_to_gguf  # noqa: E402
from studio.quantize.imatrix_file import read_imatrix  # noqa: E402

CHUNK, CHUNKS, EVERY = 128, 8, 16


def main(tools: Path) -> None:
    lines = (ROOT / "assets" / "demo-heldout.jsonl").read_text(encoding="utf-8").splitlines()
    text = "\n".join(f"{entry['prompt']} {entry['answer']}" for entry in map(json.loads, lines))[: CHUNK * CHUNKS * 4]
    with tempfile.TemporaryDirectory() as folder:
        model, asked, out = (Path(folder) / name for name in ("demo.gguf", "text.txt", "imatrix.gguf"))
        convert_to_gguf(ROOT / "assets" / "demo-model", model, outtype="f32")
        asked.write_text(text, encoding="utf-8")
        wide = ["-fa", "off", "-ctk", "f32", "-ctv", "f32"]
        command = [tools / "llama-imatrix", "-m", model, "-f", asked, "-o", out, "-c", str(CHUNK), *wide]
        subprocess.run([*command, "--chunks", str(CHUNKS), "-t", "2"], check=True)
        listing = [tools / "llama-tokenize", "-m", model, "-f", asked, "--ids", "--log-disable"]
        said = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
        tokens = np.array(json.loads(said[said.index("[") :])[: CHUNK * CHUNKS], dtype=np.uint16)
        tokens = tokens.reshape(CHUNKS, CHUNK)
        tokens[:, 0] = tokens[0, 0]  # llama-imatrix begins every chunk anew
        recorded = {"tokens": tokens}
        for name, entry in read_imatrix(out).entries.items():
            recorded[f"{name}.counts"] = entry.counts.astype(np.int32)
            recorded[f"{name}.sums"] = entry.sums[:, ::EVERY]
    np.savez_compressed(ROOT / "tests" / "quantize" / "data" / "llama_imatrix.npz", **recorded)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
