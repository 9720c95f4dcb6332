"""Training the demo model from nothing on two CPU cores in less than two hours.

    python -m studio.demo.train --minutes 110 --out assets/demo-model

Every batch holds packed rows of conversations of all classes. The loss is the cross-entropy of the model's own turns
plus a small load-balancing term. That term (Switch Transformer, arXiv 2101.03961, equation 4) is computed per layer
over the whole batch: experts · Σ_i f_i · p_i, with f_i the share of routed tokens and p_i the mean probability of
expert i.
Because each batch mixes all classes, an expert may serve one class alone as long as it is used at all.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer

from studio.demo.dialogue import dialogue
from studio.demo.evaluate import accuracy, held_out
from studio.demo.exercises import CHECKABLE
from studio.demo.model import EXPERTS, new_model, save_model
from studio.demo.tokenizer import load_tokenizer, train_tokenizer
from studio.errors import InputError

log = logging.getLogger(__name__)

ROW = 256  # tokens in a packed row
ROWS = 6
BALANCE = 0.005
CREATIVE_WEIGHT = 0.4  # many creative answers are right, so their tokens teach less per piece
WARMUP_STEPS = 60
DECAY_SHARE = 0.35  # of the time, at the end
STATE = Path(tempfile.gettempdir()) / "espalier-train"
KLASSES = ("math", "logic", "code", "science", "creative", "chat")


@dataclass(frozen=True)
class Batch:
    """Packed rows, each [ROWS, ROW]: token ids, positions (from 0 in each conversation), the token to say next (−100
    where nothing is learnt) and the class of the conversation (−1 for padding)."""

    ids: Any
    positions: Any
    labels: Any
    klasses: Any

    def to(self, device: Any) -> Batch:
        return Batch(*(tensor.to(device) for tensor in (self.ids, self.positions, self.labels, self.klasses)))


def encode(tokenizer: Any, pieces: list[tuple[str, bool]]) -> tuple[list[int], list[int]]:
    """Token ids and, shifted by one, what to say after each of them (−100 where nothing is learnt)."""
    ids: list[int] = []
    learnt: list[bool] = []
    for text, is_learnt in pieces:
        new = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += new
        learnt += [is_learnt] * len(new)
    return ids, [token if flag else -100 for token, flag in zip(ids[1:], learnt[1:], strict=True)] + [-100]


def batch_of(tokenizer: Any, rng: Random) -> Batch:
    """A batch of conversations from the training side, packed into rows (first row with room)."""
    import torch

    rows: list[list[tuple[list[int], list[int], int]]] = [[] for _ in range(ROWS)]
    room = [ROW] * ROWS
    misses = 0
    while misses < 4:
        talk = dialogue(rng)
        ids, labels = encode(tokenizer, list(talk.pieces()))
        fitting = [r for r in range(ROWS) if room[r] >= len(ids)]
        if not fitting:
            misses += 1
            continue
        row = fitting[0]
        rows[row].append((ids, labels, KLASSES.index(talk.klass)))
        room[row] -= len(ids)
    shape = (ROWS, ROW)
    all_ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    all_labels, klasses = torch.full(shape, -100), torch.full(shape, -1)
    for r, row_items in enumerate(rows):
        at = 0
        for ids, labels, klass in row_items:
            end = at + len(ids)
            all_ids[r, at:end] = torch.tensor(ids)
            positions[r, at:end] = torch.arange(len(ids))
            all_labels[r, at:end] = torch.tensor(labels)
            klasses[r, at:end] = klass
            at = end
        positions[r, at:] = torch.arange(ROW - at)
    return Batch(all_ids, positions, all_labels, klasses)


class Balance:
    """Collects router probabilities and choices of one forward pass and gives the balancing loss."""

    def __init__(self, model: Any) -> None:
        self.seen: list[tuple[Any, Any]] = []
        for layer in model.model.layers:
            layer.router.register_forward_hook(self._hook)

    def _hook(self, module: Any, args: Any, output: Any) -> None:
        if module.training:
            self.seen.append((output[0], output[2]))

    def loss(self, real: Any) -> tuple[Any, float]:
        """The mean over layers of experts · Σ f·p over the tokens where `real` [T] is true, and the smallest share of
        tokens of any expert relative to an even share. Forgets the pass."""
        import torch

        total, least = torch.zeros((), device=real.device), math.inf
        for probabilities, chosen in self.seen:
            share = torch.bincount(chosen[real].flatten(), minlength=EXPERTS).float()
            share = share / share.sum()
            total = total + EXPERTS * (share * probabilities[real].mean(0)).sum()
            least = min(least, float(share.min()) * EXPERTS)
        layers = len(self.seen)
        self.seen.clear()
        return total / layers, least


def learning_rate(step: int, spent: float, peak: float) -> float:
    """Warmup by steps, then stable, then linear decay to 2 % by the share of the time budget that is spent."""
    decay = min(1.0, max(0.02, (1.0 - spent) / DECAY_SHARE))
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * decay


def optimizer_of(model: Any, peak: float) -> Any:
    """AdamW; weight decay on matrices only."""
    import torch

    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), eps=1e-9, fused=True)


def train_step(model: Any, optimizer: Any, balance: Balance, batch: Batch) -> dict[str, Any]:
    """One step. Returns losses: `loss`, `balance`, `least` (use of the least used expert) and per class."""
    import torch
    from torch.nn import functional

    model.train()
    hidden = model.model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False).last_hidden_state
    learnt = batch.labels >= 0
    logits = model.lm_head(hidden[learnt])
    logits = 30.0 * torch.tanh(logits / 30.0)  # the config's final_logit_softcapping
    each = functional.cross_entropy(logits, batch.labels[learnt], reduction="none")
    klass = batch.klasses[learnt]
    weight = torch.where(klass == KLASSES.index("creative"), CREATIVE_WEIGHT, 1.0)
    loss = (each * weight).sum() / weight.sum()
    even, least = balance.loss(batch.klasses.flatten() >= 0)
    (loss + BALANCE * even).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    per_class = {
        name: float(each[klass == k].mean().detach()) for k, name in enumerate(KLASSES) if bool((klass == k).any())
    }
    return {"loss": loss.item(), "balance": even.item(), "least": least, "classes": per_class}


@dataclass
class Run:
    """What a run in progress consists of and where it keeps what it needs to resume."""

    model: Any
    tokenizer: Any
    optimizer: Any
    state: Path
    seed: int
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0  # spent before the process was last started

    @classmethod
    def start(cls, state: Path, seed: int, peak: float) -> Run:
        """A new run, or the one that `state` holds."""
        import torch

        state.mkdir(parents=True, exist_ok=True)
        # A resumed run keeps the tokenizer it began with, even if the exercises changed since.
        checkpoint = state / "checkpoint"
        tokenizer = load_tokenizer(checkpoint) if checkpoint.exists() else train_tokenizer(seed)
        gpu = torch.cuda.is_available()
        model = new_model(seed, len(tokenizer)).to("cuda" if gpu else "cpu")
        model.set_experts_implementation("eager" if gpu else "grouped_mm")  # CUDA groups bfloat16 only
        run = cls(model, tokenizer, optimizer_of(model, peak), state, seed)
        if (state / "state.pt").exists():
            kept = torch.load(state / "state.pt", weights_only=True, map_location=model.device)
            if kept.get("seed", seed) != seed:
                raise InputError(f"The run in {state} has seed {kept['seed']}.", "Name another --state, or that seed.")
            model.load_state_dict(kept["model"])
            run.optimizer.load_state_dict(kept["optimizer"])
            run.step, run.tokens, run.seconds = kept["step"], kept["tokens"], kept["seconds"]
            log.info("resumed at step %d", run.step)
        return run

    def save(self, seconds: float) -> None:
        """Keeps the state of the run, and the model as a loadable checkpoint."""
        import torch

        save_model(self.model, self.tokenizer, self.state / "checkpoint")
        kept = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(
            {**kept, "step": self.step, "tokens": self.tokens, "seconds": seconds, "seed": self.seed},
            self.state / "state.new",
        )
        (self.state / "state.new").replace(self.state / "state.pt")

    def record(self, row: dict[str, Any]) -> None:
        """Adds a line to the log."""
        with (self.state / "log.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": self.step, "tokens": self.tokens, **row}) + "\n")


def train(run: Run, *, out: Path, minutes: float, seed: int, peak: float, check_minutes: float, stop_at: float) -> None:
    """Trains until the time is spent, then writes the model to `out` and a summary beside the log.

    Every `check_minutes` held-out accuracy is measured and the state saved. Once all four checkable classes reach
    `stop_at`, the decay of the learning rate starts at once.
    """
    balance = Balance(run.model)
    rng = Random(f"train-{seed}-{run.step}")
    exercises = held_out(48, seed=2)
    budget, start, last_check, jump = minutes * 60, time.monotonic(), time.monotonic(), 0.0
    sums: dict[str, list[float]] = defaultdict(list)

    def seconds() -> float:
        return run.seconds + time.monotonic() - start

    while (spent := (jump + seconds()) / budget) < 1:
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(run.step, spent, peak)
        batch = batch_of(run.tokenizer, rng).to(run.model.device)
        result = train_step(run.model, run.optimizer, balance, batch)
        run.step += 1
        run.tokens += int((batch.klasses >= 0).sum())
        for name, value in result.pop("classes").items():
            sums[name].append(value)
        if run.step % 50 == 0:
            means = {name: round(sum(values) / len(values), 4) for name, values in sums.items()}
            sums.clear()
            run.record({"seconds": round(seconds()), "spent": round(spent, 3), **result, "classes": means})
        if time.monotonic() - last_check > check_minutes * 60:
            last_check = time.monotonic()
            reached = accuracy(run.model, run.tokenizer, exercises)
            run.record({"accuracy": reached})
            run.save(seconds())
            if min(reached[name] for name in CHECKABLE) >= stop_at and spent < 1 - DECAY_SHARE:
                jump += (1 - DECAY_SHARE - spent) * budget
    save_model(run.model, run.tokenizer, out)
    run.save(seconds())
    final = {"step": run.step, "tokens": run.tokens, "minutes": round(seconds() / 60, 1)}
    (run.state / "summary.json").write_text(json.dumps({**final, "parameters": run.model.num_parameters()}) + "\n")


def main(
    *,
    out: Annotated[Path, typer.Option(help="folder for the finished model")] = Path("assets/demo-model"),
    minutes: Annotated[float, typer.Option(help="time budget; the learning rate follows it")] = 110.0,
    seed: Annotated[int, typer.Option(help="of the weights, the tokenizer's text and the exercises")] = 0,
    peak: Annotated[float, typer.Option(help="highest learning rate")] = 1.5e-3,
    state: Annotated[Path, typer.Option(help="folder of log and checkpoint; resumed from if it exists")] = STATE,
    check_minutes: Annotated[float, typer.Option(help="minutes between held-out measurements")] = 5.0,
    stop_at: Annotated[float, typer.Option(help="accuracy of all checkable classes that starts the decay")] = 0.97,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
) -> None:
    """Trains the demo model."""
    import torch

    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    run = Run.start(state, seed, peak)
    train(run, out=out, minutes=minutes, seed=seed, peak=peak, check_minutes=check_minutes, stop_at=stop_at)


if __name__ == "__main__":
    typer.run(main)
