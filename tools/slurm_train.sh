#!/usr/bin/env bash
# Under Slurm, one torchrun a node: slurm_train.sh PARTITION JOB CONFIG GPUS [options of train.py]
# GPUS_PER_NODE (8), CPUS_PER_TASK (5 a GPU), SRUN_ARGS and PYTHON may be set.
set -euo pipefail

if ! [[ ${4:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 PARTITION JOB CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
partition=$1 job=$2 config=$3 gpus=$4
shift 4
per_node=${GPUS_PER_NODE:-8}
per_node=$((gpus < per_node ? gpus : per_node))
if [ $((gpus % per_node)) -ne 0 ]; then
    echo "error: $gpus GPUs do not divide into nodes of $per_node; set GPUS_PER_NODE" >&2
    exit 2
fi

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$(dirname "$tools")${PYTHONPATH:+:$PYTHONPATH}"
# The first node of the allocation is known inside it only; the port differs from job to job.
exec srun --partition "$partition" --job-name "$job" \
    --nodes $((gpus / per_node)) --ntasks-per-node 1 --gres "gpu:$per_node" \
    --cpus-per-task "${CPUS_PER_TASK:-$((5 * per_node))}" --kill-on-bad-exit 1 ${SRUN_ARGS:-} \
    bash -c '
        host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
        exec "$0" -m torch.distributed.run --nnodes "$SLURM_NNODES" --rdzv-id "$SLURM_JOB_ID" \
            --rdzv-backend c10d --rdzv-endpoint "$host:$((20000 + SLURM_JOB_ID % 10000))" "$@"
    ' "${PYTHON:-python}" --nproc-per-node "$per_node" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2 \
    "$tools/train.py" "$config" --launcher pytorch "$@"
