#!/usr/bin/env bash
# Train on this machine with one process per GPU (or one on the CPU), or NPROC_PER_NODE processes:
#   launch/run.sh configs/gpt2_124m.toml configs/schedule/wsd.toml --seed 2
# MAX_RESTARTS=3: resume from the last checkpoint after a rank died, up to 3 times. docs/launch.md
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
: "${NPROC_PER_NODE:=$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}"
# Otherwise torch 2.13 restarts the ranks on a store that has the keys of the earlier attempt.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# By default torchrun dies of SIGUSR1 and SIGUSR2, and allows 30 s, which may be too short.
exec "$python" -m torch.distributed.run --standalone --nproc_per_node="$NPROC_PER_NODE" \
    --max_restarts="${MAX_RESTARTS:-0}" --shutdown_timeout="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-60}" \
    --signals_to_handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2 train_gpt2.py "$@"
