#!/bin/bash
# Train with torchrun, on one machine or on several that may come and go. When a process or a machine fails, all are
# started again and go on from the last checkpoint (the end of an epoch, or where a signal has stopped them).
#
#   bash examples/slurm/torchrun.sh configs/dvs_gesture.yaml --trainer.max_epochs=200
#
# Settings, as variables; the same on every machine:
#   PROCESSES     processes on each machine, default: one for each GPU, or 1
#   NODES         how many machines, fewest:most, default 1 (elastic: 1:4)
#   RESTARTS      how often to start again after a failure, default 3
#   RUN_ID        names the run folder runs/NAME/job-RUN_ID; give the one of before to go on, default: the time
#   RENDEZVOUS    host:port of one of the machines, needed for more than one
#   PYTHON        default python

set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: $0 CONFIG.yaml [--KEY=VALUE ...]" >&2
    exit 2
fi
config=$1
shift

PYTHON=${PYTHON:-python}
NODES=${NODES:-1}
RUN_ID=${RUN_ID:-${SLURM_JOB_ID:-$(date +%Y%m%d-%H%M%S)}}
PROCESSES=${PROCESSES:-$("$PYTHON" -c 'import torch; print(max(1, torch.cuda.device_count()))')}

# a store of addresses of its own for each start: in a shared one processes may find those of the start before
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

exec "$PYTHON" -m torch.distributed.run \
    --nnodes="$NODES" \
    --nproc-per-node="$PROCESSES" \
    --max-restarts="${RESTARTS:-3}" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="${RENDEZVOUS:-localhost:0}" \
    --rdzv-id="$RUN_ID" \
    -m jellyfit fit -c "$config" \
    --trainer.devices="$PROCESSES" \
    --trainer.strategy=ddp \
    "$@"
