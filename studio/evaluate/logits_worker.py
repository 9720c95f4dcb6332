"""The child process that computes logits of one GGUF: `python -m studio.evaluate.logits_worker`.

Its parent writes JSON lines to its stdin: first the settings (answered with what the vocabulary is like), then
requests, which are answered in their order. `{"text", "add_special", "parse_special"}` and `{"continue", "count"}` are
answered with a JSON line of tokens, `{"tokens", "first"}` with the logits after each token from number `first` on, raw
float32.
All that llama.cpp says goes to stderr, which the parent points at a log file.
"""

from __future__ import annotations

import json
import sys
from typing import IO, Any

from studio.child import die_with_parent, own_stdout
from studio.errors import EspalierError
from studio.evaluate.llama import LlamaModel
from studio.quantize.placement import Offload


def main() -> None:
    die_with_parent()
    answers = own_stdout()
    settings = json.loads(sys.stdin.readline())
    offload = Offload(**settings.pop("offload"))
    try:
        model = LlamaModel(**settings, offload=offload)
        _answer(answers, {"vocabulary": model.vocabulary, **model.special})
        for line in sys.stdin:
            _serve(model, json.loads(line), answers)
    except EspalierError as error:
        sys.exit(str(error))


def _serve(model: LlamaModel, request: dict[str, Any], answers: IO[bytes]) -> None:
    if "text" in request:
        _answer(answers, {"tokens": model.tokens(request.pop("text"), **request)})
    elif "continue" in request:
        _answer(answers, {"tokens": model.continued(request["continue"], request["count"])})
    else:
        for block in model.logits(request["tokens"], request["first"]):
            answers.write(block.data)
        answers.flush()


def _answer(answers: IO[bytes], said: dict[str, Any]) -> None:
    answers.write(json.dumps(said).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
