"""From a model folder and a prompt file to a contributions file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.contributions import file
from studio.contributions.checkpoint import key_of, model_key
from studio.contributions.model import SUMS, Contributions
from studio.contributions.prompts import read_prompts
from studio.errors import FormatError, InputError, OutputExistsError
from studio.families.lookup import shape_of_config
from studio.progress import Progress, silent
from studio.staging import require_disk, resumable

if TYPE_CHECKING:
    from studio.contributions.energies import Energies

_INTERRUPTIONS = (KeyboardInterrupt, MemoryError, RuntimeError)
"""What an analysis goes on after as it does after a kill; torch reports a full GPU as a RuntimeError."""


def analyze(
    model_dir: Path,
    prompts: Path,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    dtype: str = "auto",
    max_tokens: int = 4096,
    continuation_tokens: int = 128,
    use_energies: Callable[[Energies], object] | None = None,
) -> Contributions:
    """Load the model in `model_dir` (safetensors, transformers), observe it on the file `prompts`, save to `out`.

    On the GPU when there is one that the model fits on, else on the CPU. `dtype` is a torch dtype's name, or "auto" for
    that of the checkpoint; `max_tokens` and `continuation_tokens` are those of `collect`. Everything that can be wrong
    with the inputs is checked before the weights are read. What is finished is kept in a hidden folder beside `out`:
    the next analysis with the same model and the same `out` goes on where this one was interrupted.

    With `use_energies` the same pass measures what flows into every weight; it is called once, before `out` is written.

    Raises `OutputExistsError`, `FormatError` for a broken prompt file, `UnsupportedError` for an unknown architecture,
    `InputError` for a folder without a model.
    """
    model_dir, out = Path(model_dir), Path(out)
    if out.exists() and not overwrite:
        raise OutputExistsError(out)
    asked = read_prompts(Path(prompts))
    shape = shape_of_config(_config(model_dir))
    out.parent.mkdir(parents=True, exist_ok=True)
    require_disk(out.parent, len(asked) * shape.layers * shape.experts * len(SUMS) * 8)
    progress(0, len(asked), "questions", f"loading {model_dir.name}")
    model, tokenizer = _load(model_dir, dtype)

    from studio.contributions.collector import collect
    from studio.contributions.energies import Energies

    energies = Energies() if use_energies else None
    with resumable(out.parent, out.name, _key(model_dir, model), outlives=_INTERRUPTIONS) as checkpoint:
        contributions = collect(
            model,
            tokenizer,
            asked,
            shape=shape,
            max_tokens=max_tokens,
            continuation_tokens=continuation_tokens,
            progress=progress,
            model_name=model_dir.name,
            checkpoint=checkpoint,
            energies=energies,
        )
        if use_energies and energies:
            use_energies(energies)
        file.save(contributions, out, overwrite)
    return contributions


def _key(model_dir: Path, model: Any) -> str:
    """What stands for the loaded `model`, and so for every number that it gives on the same tokens."""
    import torch
    import transformers

    versions = [torch.__version__, transformers.__version__]
    return key_of([model_key(model_dir), str(model.dtype), str(model.device), versions])[:32]


def _config(model_dir: Path) -> dict[str, Any]:
    path = model_dir / "config.json"
    if not path.is_file():
        raise InputError(f"{model_dir} holds no config.json.", "Give the folder of a safetensors model.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(path, "", f"this is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise FormatError(path, "", "this is not a JSON object")
    return config


def _load(model_dir: Path, dtype: str) -> tuple[Any, Any]:
    """The model, in evaluation mode on the best device, and its tokenizer; nothing is fetched or executed from it."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise InputError(f"{dtype!r} is no torch dtype.", "Give auto, float32, bfloat16 or float16.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"The model in {model_dir} cannot be loaded: {reason}.") from error
    return model.to(_device(model)).eval(), tokenizer


def _device(model: Any) -> Any:
    """A GPU with room for the weights and a fifth on top for the pass, else the CPU."""
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        if free > 1.2 * model.get_memory_footprint():
            return torch.device("cuda")
    return torch.device("cpu")
