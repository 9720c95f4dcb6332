"""The child process that holds one GGUF model: `python -m studio.serve.worker`. See `studio.child`."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from studio import child


def main() -> None:
    settings, answer = child.begin()
    # While a model loads this thread has to wait, because loading holds Python's lock.
    threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()
    try:
        server = _serve(settings)
    except RuntimeError as error:  # llama.cpp has said before what is wrong
        sys.exit(str(error))
    answer.write(json.dumps({"port": urlsplit(server.listening_address).port}) + "\n")
    answer.flush()
    threading.Event().wait()


def _serve(settings: Mapping[str, Any]) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["model"]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0  # the system chooses a free one
    parameters.api_keys = [settings["api_key"]]
    parameters.ui = False
    parameters.n_parallel = settings["slots"]
    parameters.n_ctx = settings["context"] * settings["slots"]  # llama.cpp shares it out between the slots
    parameters.cpuparams.n_threads = settings["threads"]
    parameters.cache_ram_mib = 0  # by default it may take 8 GiB for the prompts of conversations gone by
    parameters.cache_idle_slots = False
    parameters.n_ctx_checkpoints = 1  # of sliding layers, 32 by default; one takes up a conversation where it stopped
    parameters.use_jinja = True
    parameters.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_DEEPSEEK
    if settings.get("offload"):  # else llama.cpp decides
        parameters.fit_params = False  # what is decided is not for llama.cpp to fit anew
        gpu_layers, overrides = settings["offload"]
        if gpu_layers is not None:
            parameters.n_gpu_layers = gpu_layers
        if overrides:
            parameters.tensor_buft_overrides = overrides
    return xllamacpp.Server(parameters)


def _exit_at_end_of_stdin() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
