"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs import Config
from configs.origin import settings
from record import hellaswag, parents

SUMMARY = f"final_{hellaswag.NAME}_"  # how the names of its numbers begin there


class Screen:
    """Progress of one run; silent where `speaks` is false (all ranks but one).

    A bar needs tqdm and a terminal; without them there are lines.
    """

    def __init__(self, total_steps: int, start_step: int, print_every: int, speaks: bool) -> None:
        self.total_steps, self.print_every, self.speaks = total_steps, print_every, speaks
        self.val_loss = self.acc_norm = math.nan
        self.bar: Any = None
        if speaks and sys.stderr.isatty() and importlib.util.find_spec("tqdm"):
            from tqdm import tqdm

            self.bar = tqdm(total=total_steps, initial=start_step, unit="step", dynamic_ncols=True)

    def evaluated(self, step: int, measured: Mapping[str, float]) -> None:
        """Show the validation loss after `step` updates, and the accuracy if it was measured."""
        self.val_loss = measured["val/loss"]
        self.acc_norm = measured.get("hellaswag/acc_norm", math.nan)
        if not self.bar:
            answers = f"  HellaSwag {self.acc_norm:.4f}" if math.isfinite(self.acc_norm) else ""
            self.say(f"step {step}/{self.total_steps}  val loss {self.val_loss:.4f}{answers}")

    def stepped(self, step: int, values: dict[str, Any]) -> None:
        """Show how update `step` went; `values` as they are logged."""
        loss, norm, lr = (values[f"train/{key}"] for key in ("loss", "grad_norm", "lr"))
        speed, step_ms = values["tokens_per_second"], values["time/step_ms"]
        if self.bar:
            val = f"val {self.val_loss:.4f}"
            val += f" HellaSwag {self.acc_norm:.4f}" if math.isfinite(self.acc_norm) else ""
            text = f"loss {loss:.4f} {val} lr {lr:.2e} {speed:,.0f} tok/s"
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update()
        elif (step + 1) % self.print_every == 0:
            left = (self.total_steps - step - 1) * step_ms / 1e3
            self.say(
                f"step {step + 1}/{self.total_steps}  loss {loss:.4f}  norm {norm:.3f}  "
                f"lr {lr:.2e}  {step_ms:.0f} ms  {speed:,.0f} tok/s  {left:.0f} s left"
            )

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self.speaks and self.bar:
            self.bar.write(text)
        elif self.speaks:
            print(text, flush=True)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar:
            self.bar.close()


def opening(
    config: Config,
    origins: Mapping[str, str],
    step: int,
    model: str,
    batch: str,
    epochs: float,
    held_out: Mapping[str, int],
) -> str:
    """What a person wants to know at the start of a run.

    origins: as configs.origin gives them. held_out: tokens to evaluate on, by split.
    """
    texts = ", ".join(f"{tokens:,} {split} tokens" for split, tokens in held_out.items())
    how = " (auto: the most that fit)" if config.train.micro_batch_size == "auto" else ""
    quiz = f"; HellaSwag from {config.eval.hellaswag}" if config.eval.hellaswag else ""
    lines = (
        f"run       {config.directory}{f', from step {step}' if step else parents.words(config)}",
        f"model     {model}",
        f"batch     {batch}{how}",
        f"data      {config.data.dir}: {epochs:.2f} epochs; {texts}{quiz}",
        *settings(config, origins),
    )
    return "\n".join(lines)


def closing(summary: dict[str, Any], directory: Path) -> str:
    """What a person wants to know at the end of a run, and where to look."""
    s = summary
    averages = {k: v for k, v in s.items() if k.startswith(("final_val_loss_", "final_test_loss_"))}
    others = ", ".join(f"{k[6:].replace('_', ' ')} {v:.4f}" for k, v in averages.items())
    test = "" if s["final_test_loss"] is None else f"test loss {s['final_test_loss']:.4f}, "
    return (
        f"finished  {test}val loss {s['final_val_loss']:.4f} (best {s['best_val_loss']:.4f}, "
        f"at the start {s['initial_val_loss']:.4f}); stability {s['stability_score']:.4f}, "
        f"spikes {s['spike_score']:.2f} %\n"
        + (f"averages  {others}\n" if others else "")
        + (f"HellaSwag {hellaswag.words(s, SUMMARY)}\n" if f"{SUMMARY}acc_norm" in s else "")
        + f"time      {s['train_seconds']:.1f} s of training, {s['step_ms_median']:.1f} ms a step "
        f"(optimizer {s['optimizer_ms_median']:.2f}), {s['tokens_per_second']:,.0f} tokens/s\n"
        f"look at   {directory}: summary.json, metrics.jsonl, config.toml"
        + (f"; curves: python -m record.leet {directory}" if (directory / "wandb").is_dir() else "")
    )
