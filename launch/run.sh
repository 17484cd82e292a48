#!/usr/bin/env bash
# Train on this machine with as many processes as it has GPUs (one without):
#   launch/run.sh configs/gpt2_124m.toml configs/schedule/wsd.toml --seed 2
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
gpus=$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')
exec "$python" -m torch.distributed.run --standalone --nproc_per_node="$gpus" train_gpt2.py "$@"
