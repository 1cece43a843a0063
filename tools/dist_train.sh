#!/usr/bin/env bash
# One machine, one process a GPU: dist_train.sh CONFIG GPUS [options of train.py]
# Without GPUs it starts as many CPU processes, of one thread each unless OMP_NUM_THREADS is set (a
# default of torchrun's). PYTHON names the interpreter.
set -euo pipefail

if ! [[ ${2:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$(dirname "$tools")${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc-per-node "$gpus" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2 \
    "$tools/train.py" "$config" --launcher pytorch "$@"
