#!/usr/bin/env bash
# Train on a Slurm cluster:  GPUS=16 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of train ...]
# GPUS in all (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and further SRUN_ARGS come from the environment.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: [GPUS=8] $0 PARTITION JOB_NAME CONFIG [options of beyonddrive train ...]" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$per_node" ]; then
    per_node=$gpus
fi
# SRUN_ARGS is a list of words, hence without quotes.
# shellcheck disable=SC2086
exec srun --partition="$partition" --job-name="$job_name" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} "${PYTHON:-python}" -u -m beyonddrive train "$config" --launcher slurm "${@:4}"
