"""From a model folder and prompts to a contributions file."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from studio.contributions import file
from studio.contributions.calibration import Calibration
from studio.contributions.model import SUMS, Contributions
from studio.contributions.preflight import Mode, Preflight
from studio.contributions.sources import prompts_of
from studio.errors import FormatError, InputError, OutputExistsError
from studio.families.lookup import shape_of_config
from studio.progress import Progress, silent
from studio.staging import require_disk, resumable
from studio.steady import steady

if TYPE_CHECKING:
    from studio.contributions.energies import Energies

_log = logging.getLogger(__name__)

_INTERRUPTIONS = (KeyboardInterrupt, MemoryError, RuntimeError)
"""What an analysis goes on after as it does after a kill; torch reports a full GPU as a RuntimeError."""


def analyze(
    model_dir: Path,
    prompts: Calibration | Path,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    dtype: str = "auto",
    max_tokens: int = 4096,
    continuation_tokens: int = 128,
    thinking: bool = False,
    use_energies: Callable[[Energies], object] | None = None,
    mode: Mode | Literal["auto"] = "auto",
    ray: str | None = None,
) -> Contributions:
    """Load the model in `model_dir` (safetensors, transformers), observe it on `prompts`, save to `out`.

    `prompts` may be any one source. `mode` says how: the "whole" model in memory (on the GPU where it fits there),
    "offloaded" (what does not fit on the GPU in main memory), or "layered" (one layer at a time); "auto" goes by the
    estimates of `estimate`. `dtype` is a torch dtype's name, "auto" for that of the checkpoint, or "nf4" for that with
    the experts in four bits; `max_tokens`, `continuation_tokens` and `thinking` are those of `collect`. Everything that
    can be wrong with the inputs is checked before the weights are read. What is finished is kept in a hidden folder
    beside `out`: the next analysis with the same model and the same `out` goes on where this one was interrupted.

    With `ray`, the address of a Ray cluster or "auto", its nodes share the questions; each holds the whole model.

    With `use_energies` the same pass measures what flows into every weight; it is called once, before `out` is written.

    Raises `OutputExistsError`, `FormatError` for a broken prompt file, `UnsupportedError` for an unknown architecture,
    `InputError` for a folder without a model or for prompts that the mode cannot observe, `ResourceError` when the pass
    fits in no way.
    """
    model_dir, out = Path(model_dir), Path(out)
    if out.exists() and not overwrite:
        raise OutputExistsError(out)
    calibration = prompts if isinstance(prompts, Calibration) else prompts_of(str(prompts))
    asked = calibration.prompts
    shape = shape_of_config(_config(model_dir))
    out.parent.mkdir(parents=True, exist_ok=True)
    require_disk(out.parent, len(asked) * shape.layers * shape.experts * len(SUMS) * 8)
    from studio.contributions.energies import Energies
    from studio.contributions.observation import Request, prepare
    from studio.contributions.ray_executor import on_cluster

    request = Request(model_dir, asked, shape, dtype, max_tokens, continuation_tokens, thinking)
    energies = Energies() if use_energies else None
    if ray is not None:
        observation = on_cluster(ray, request, mode, energies)
    else:
        chosen = estimate(
            model_dir,
            calibration,
            dtype=dtype,
            max_tokens=max_tokens,
            continuation_tokens=continuation_tokens,
            thinking=thinking,
        ).choose(mode)
        _log.info("%s: %s", chosen.mode, chosen.reason)
        progress(0, len(asked), "questions", f"{chosen.mode}: {chosen.reason}")
        observation = prepare(request, chosen, energies)
    with resumable(out.parent, out.name, observation.key, outlives=_INTERRUPTIONS) as checkpoint:
        with steady(file for file in model_dir.iterdir() if file.is_file()):
            contributions = observation.collect(checkpoint, progress)
        contributions = replace(contributions, source=f"{contributions.source}; prompts: {calibration.story}")
        if use_energies and energies:
            use_energies(energies)
        file.save(contributions, out, overwrite)
    return contributions


def estimate(
    model_dir: Path,
    prompts: Calibration | Path,
    *,
    dtype: str = "auto",
    max_tokens: int = 4096,
    continuation_tokens: int = 128,
    thinking: bool = False,
) -> Preflight:
    """What `analyze` would take with these arguments, in each mode; reads no weights but to see how fast the disk is.

    Raises what `analyze` raises of the prompts and the model's folder.
    """
    from studio.contributions.measuring import measure

    calibration = prompts if isinstance(prompts, Calibration) else prompts_of(str(prompts))
    return measure(
        Path(model_dir),
        _config(Path(model_dir)),
        calibration.prompts,
        dtype=dtype,
        max_tokens=max_tokens,
        continuation_tokens=continuation_tokens,
        thinking=thinking,
    )


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
