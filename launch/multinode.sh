#!/usr/bin/env bash
# One run on several machines. The same command on each, except for NODE_RANK:
#
#   MASTER_ADDR=10.0.0.1 NNODES=2 NODE_RANK=0 launch/multinode.sh configs/gpt2_124m.toml --seed 2
#
#   MASTER_ADDR      name or address of node 0, as the others reach it; MASTER_PORT, default 29500
#   NNODES           number of nodes; MIN:MAX makes the run elastic: nodes join and leave, no NODE_RANK
#   NPROC_PER_NODE   processes on each node; default: one per GPU, or one on the CPU
#   MAX_RESTARTS     how often to resume from the last checkpoint after a rank died; default 0, elastic 3
#   JOIN_SECONDS     how long to wait for the other nodes; default 45, as launch.join_seconds
#
# The arguments are the trainer's. All nodes need the same code, data and --log.dir. docs/launch.md
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python

mistake() {
    echo "error: $(hostname): $1; the first lines of launch/multinode.sh say how to call it" >&2
    exit 2
}
[ -n "${MASTER_ADDR:-}" ] || mistake "MASTER_ADDR, the address of node 0, is not set"
[[ ${NNODES:-} =~ ^[1-9][0-9]*(:[1-9][0-9]*)?$ ]] || mistake "NNODES='${NNODES:-}' is no number of nodes"
port=${MASTER_PORT:-29500} patience=${JOIN_SECONDS:-45}
: "${NPROC_PER_NODE:=$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}"

if [[ $NNODES == *:* ]]; then
    elastic=1 restarts=${MAX_RESTARTS:-3}
else
    elastic=0 restarts=${MAX_RESTARTS:-0}
    [[ ${NODE_RANK:-} =~ ^[0-9]+$ ]] || mistake "NODE_RANK='${NODE_RANK:-}' is no number"
    ((NODE_RANK < NNODES)) || mistake "NODE_RANK=$NODE_RANK is not below NNODES=$NNODES"
fi
route=$("$python" -m launch.route "$MASTER_ADDR" "$port" "$patience" \
    $( ((elastic)) || echo "$NNODES" "$NODE_RANK"))
read -r interface own here <<<"$route"
if [ "$interface" != - ]; then
    export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface}
    export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interface}
fi
if ((elastic)); then
    # Otherwise torch 2.13 restarts the ranks on a store that has the keys of the earlier attempt.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    meeting=(--rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:$port" --rdzv_id="${RDZV_ID:-gpt2}"
        --rdzv_conf="is_host=$here,join_timeout=50,last_call_timeout=5" --local_addr="$own")
else
    meeting=(--node_rank="$NODE_RANK" --master_addr="$MASTER_ADDR" --master_port="$port"
        --rdzv_conf=timeout=60)
fi
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-60} # torch 2.11 has 30 s
exec "$python" -m torch.distributed.run --nnodes="$NNODES" --nproc_per_node="$NPROC_PER_NODE" \
    "${meeting[@]}" --max_restarts="$restarts" \
    --signals_to_handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2 train_gpt2.py "$@"
