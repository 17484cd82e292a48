"""What nanoGPT's settings are called here: hints for people who type them."""

from __future__ import annotations

# The names of train.py in github.com/karpathy/nanoGPT whose last part is not that of a key here.
NAMES: dict[str, str] = {
    name: f"nanoGPT's {name} is --{key} here{f' ({note})' if note else ''}"
    for name, key, note in (
        ("out_dir", "log.dir", "each run has its own folder in it"),
        ("eval_interval", "eval.every", ""),
        ("eval_iters", "eval.tokens", "validation tokens, not batches"),
        ("log_interval", "log.print_every", ""),
        ("always_save_checkpoint", "checkpoint.every", "saved whatever the loss is"),
        ("wandb_log", "log.wandb", "auto, online, offline or disabled"),
        ("wandb_project", "log.project", ""),
        ("wandb_run_name", "log.group", "a run's own name is made of its settings"),
        ("dataset", "data.dir", "a folder of shards; nanoGPT's own with --data.format nanogpt"),
        (
            "gradient_accumulation_steps",
            "train.batch_tokens",
            "tokens of an update: gradient_accumulation_steps x batch_size x block_size",
        ),
        (
            "batch_size",
            "train.micro_batch_size",
            "sequences of a forward pass; those of an update are --train.batch_tokens / block_size",
        ),
        ("learning_rate", "optimizer.lr", ""),
        ("max_iters", "train.total_steps", ""),
        ("weight_decay", "optimizer.weight_decay", ""),
        ("beta1", "optimizer.betas", "both, as 0.9,0.95"),
        ("beta2", "optimizer.betas", "both, as 0.9,0.95"),
        ("decay_lr", "schedule.name", "constant: no decay"),
        ("warmup_iters", "schedule.warmup_steps", ""),
        ("min_lr", "schedule.min_lr_ratio", "min_lr / learning_rate"),
        ("lr_decay_iters", "train.total_steps", "every decay ends with the run"),
    )
} | {
    "init_from": (
        "--init run:FOLDER starts from the weights of another run; to resume, give the same command"
    ),
    "eval_only": "there is none: a run evaluates at step 0, every --eval.every updates, at the end",
    "dropout": "there is none: GPT-2 is trained without dropout here",
    "bias": "there is none: linear maps and LayerNorms have biases, as in GPT-2",
    "backend": "there is none: nccl on CUDA, gloo on CPUs",
}
