#!/usr/bin/env bash
# Evaluate on several GPUs of this machine: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test ...]
# On several machines, run it on each:      NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 tools/dist_test.sh C K 8
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [options of beyonddrive test ...]" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$gpus" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}" \
    -m beyonddrive test "$config" "$checkpoint" --launcher pytorch "${@:4}"
