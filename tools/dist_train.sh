#!/usr/bin/env bash
# Train on several GPUs of this machine:    tools/dist_train.sh CONFIG GPUS [options of train ...]
# On several machines, run it on each:      NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 tools/dist_train.sh CONFIG 8
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of beyonddrive train ...]" >&2
    exit 2
fi
config=$1
gpus=$2
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$gpus" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}" \
    -m beyonddrive train "$config" --launcher pytorch "${@:3}"
