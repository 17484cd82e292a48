#!/usr/bin/env bash
# Train on this machine with as many processes as it has GPUs (one without), or NPROC_PER_NODE:
#   launch/run.sh configs/gpt2_124m.toml configs/schedule/wsd.toml --seed 2
# MAX_RESTARTS=3: go on from the last checkpoint after a rank died, that often. docs/launch.md
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
: "${NPROC_PER_NODE:=$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}"
# Else torch 2.13 starts the ranks anew with the keys of the attempt before in their store.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Of itself torchrun dies of SIGUSR1 and 2; and 30 s may be short for a checkpoint.
exec "$python" -m torch.distributed.run --standalone --nproc_per_node="$NPROC_PER_NODE" \
    --max_restarts="${MAX_RESTARTS:-0}" --shutdown_timeout="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-60}" \
    --signals_to_handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2 train_gpt2.py "$@"
