#!/usr/bin/env bash
# All that is to be seen on a machine with a GPU that reaches no package registry, in one table:
#     benchmarks/on_gpu.sh --data CACHE --out OUT [--wheels FOLDER] [options of benchmarks/on_gpu/__main__.py]
# CACHE is what "python -m beyonddrive.benchmarks.on_gpu.make_cache CACHE" has made on another machine. FOLDER holds
# wheels of what the interpreter ($PYTHON, python3) lacks. Nothing is installed for good: wheels, checkpoints and
# what libraries keep go to a folder that is removed at the end. Without a GPU: --device cpu.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
command="benchmarks/on_gpu.sh $*"
wheels=""
options=()
while (($#)); do
  case $1 in
    --wheels=* | --data=* | --out=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --wheels) wheels=$(realpath "$2"); shift 2 ;;
    --data | --out) options+=("$1" "$(realpath -m "$2")"); shift 2 ;;
    *) options+=("$1"); shift ;;
  esac
done
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/site"
ln -s "$checkout" "$place/site/beyonddrive"
export PYTHONPATH="$place/site" PYTHONPYCACHEPREFIX="$place/pyc" PYTHONDONTWRITEBYTECODE= PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
if [[ -n $wheels ]]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$place/wheels" "$wheels"/*.whl
  PYTHONPATH="$place/site:$place/wheels"
fi
cd "$place"  # (not in the checkout, whose folders have names of other packages)
"$python" -m beyonddrive.benchmarks.on_gpu --work "$place/work" --command "$command" "${options[@]}"
