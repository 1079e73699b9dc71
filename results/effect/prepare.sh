#!/usr/bin/env bash
# What the trainings of this experiment read, made in the folder WORLD:
#
#   bash results/effect/prepare.sh WORLD [PART ...]
#
# Without a PART: world caches pool vocabularies, which most rows need. Some need one of their own besides: pool-16,
# pool-256, pool-plain, pool-diverse (rows of ablations.yml, and `LTF, wider pool`), rig (rows with `moved views`).
# pool-test and pool-val, the proposals of the other splits, are what subsets.py, offsets.py and errors.py look at.
# What is done stays, so it may be killed and started again. In the environment:
#
#   GENERATOR  checkpoint that proposes the negatives; without one it is trained first, in WORLD-generator
#   SPLITS     scenes (train:6000,val:1500,test:3000)
#   SIZES      sizes of trainings, for which there are scene filters (1200 3000 6000)
set -euo pipefail

world=${1:?the folder of the world}
world=${world%/}
shift
[ $# -gt 0 ] || set -- world caches pool vocabularies
flow=flow_policy_tiny_1xb16-12e_synth
at=(--cfg-options "data_root=$world")

filters() {
    local size filters=$world/scene_filters
    for size in ${SIZES:-1200 3000 6000}; do
        sed "s/^max_scenes: null/max_scenes: $size/" "$filters/train.yaml" > "$filters/train_$size.yaml"
    done
}

mine() {  # POOL CONFIG OPTION...
    local pool=$1 config=$2 generator=${GENERATOR:-$world-generator/epoch_12.pth}
    shift 2
    if [ -z "${GENERATOR:-}" ] && [ ! -e "$generator" ]; then
        beyonddrive train $flow --work-dir "$world-generator" --resume "${at[@]}" num_threads=1
    fi
    beyonddrive mine "$config" "$generator" --out "$world/$pool" "$@" "${at[@]}"
}

vocabulary() {  # CONFIG SIZE
    local plans=$world/vocabularies/plans_$2.npz
    [ -e "$plans" ] || beyonddrive build-vocabulary "$1" train --size "$2" --out "$plans" "${at[@]}"
    beyonddrive score-vocabulary "$1" train "$plans" --out "$world/vocabularies/scores_$2/train" "${at[@]}"
}

# A part is a function of its name.
part_world() {
    beyonddrive create-data synth --out "$world" --seed 11 --image-size 480x270 --cameras front --lidar \
        --splits "${SPLITS:-train:6000,val:1500,test:3000}" --num-workers 2
    filters
}
part_caches() {
    local planner
    for planner in ltf diffusiondrive wote; do
        beyonddrive cache-features ${planner}_tiny_1xb16-12e_synth "${at[@]}"
    done
    beyonddrive cache-metrics ltf_tiny_1xb16-12e_synth "${at[@]}"
}
part_vocabularies() {
    vocabulary wote_tiny_1xb16-12e_synth 32
    vocabulary hydra_mdp_tiny_1xb16-12e_synth 64
}
part_pool() { mine pool/train $flow; }
part_pool-test() { mine pool/test $flow --split test; }
part_pool-val() { mine pool/val $flow --split val; }
part_pool-16() { mine pool-16/train $flow --strategy num_proposals=16; }
part_pool-256() { mine pool-256/train $flow --strategy num_proposals=256; }
part_pool-plain() { mine pool-plain/train $flow --strategy type=PlainSampling; }
part_pool-diverse() { mine pool-diverse/train "$(dirname "$0")/diverse.py"; }
part_rig() {
    beyonddrive cache-features ltf_tiny_1xb16-12e_synth "${at[@]}" feature_pipeline.0.rig=True \
        "feature_cache=$world/cache/features-camera-64x256-rig"
}

for part in "$@"; do
    if ! declare -F "part_$part" > /dev/null; then
        echo "prepare.sh: there is no part '$part'; the head of this file names them" >&2
        exit 2
    fi
done
for part in "$@"; do
    "part_$part"
done
