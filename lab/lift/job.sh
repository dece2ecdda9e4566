#!/bin/sh
# Trains the lifting policy on one GPU within a budget: lab/lift/job.sh SECONDS OUT
# Recorders play demonstrations on all but two cores while the first stage learns; see docs/notebook/lift.md.
set -eu
BUDGET=$1
OUT=$2
PYTHON=${PYTHON:-python3}
CORES=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # with either of them, it tells that number instead
WORKERS=${WORKERS:-$((CORES > 3 ? CORES - 2 : 2))}
RECORDING=${RECORDING:-$((BUDGET / 4))}
BEGAN=$(date +%s)
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
mkdir -p "$OUT"
if [ -z "${SHARDS:-}" ]; then
    SHARDS=$(mktemp -d /dev/shm/lift.XXXXXX 2>/dev/null || mktemp -d)
    trap 'rm -rf "$SHARDS"' EXIT
fi

# A GPU draws the cameras through EGL; without one, software does, more slowly.
draws() {
    timeout 40 env "$@" "$PYTHON" -c '
from lab.experts.lift_recorder import LiftRecorder
from edge.arms import load_arm
import mujoco
recorder = LiftRecorder(load_arm("so101"), with_frames=True)
mujoco.mj_forward(recorder.model, recorder.data)
assert recorder.renderer.render(recorder.data).std() > 5, "the picture is empty"
recorder.close()' >"$OUT/draws.log" 2>&1
}
if draws MUJOCO_GL="${MUJOCO_GL:-egl}"; then
    export MUJOCO_GL="${MUJOCO_GL:-egl}"
elif draws MUJOCO_GL=egl __EGL_VENDOR_LIBRARY_FILENAMES=/usr/local/nvidia/share/glvnd/egl_vendor.d/10_nvidia.json; then
    export MUJOCO_GL=egl __EGL_VENDOR_LIBRARY_FILENAMES=/usr/local/nvidia/share/glvnd/egl_vendor.d/10_nvidia.json
elif draws MUJOCO_GL=osmesa; then
    export MUJOCO_GL=osmesa
else
    echo "lift: no camera can be drawn, neither by EGL nor by OSMesa; see $OUT/draws.log" >&2
    exit 2
fi
echo "lift: $WORKERS recorders draw with $MUJOCO_GL, ready after $(($(date +%s) - BEGAN)) s"

HANDS=$((WORKERS * 4 / 7)) # the other arms are SO-101s: at least one each, of two or more
worker=0
while [ "$worker" -lt "$WORKERS" ]; do
    if [ "$worker" -lt "$HANDS" ]; then
        set -- --arm franka_hand --first "$worker" --stride "$HANDS" --episodes "${HAND_EPISODES:-2000}"
    else
        set -- --arm so101 --first $((worker - HANDS)) --stride $((WORKERS - HANDS)) --episodes "${SO101_EPISODES:-1500}"
    fi
    nice -n 5 "$PYTHON" -m lab.lift.record "$@" --seconds "$RECORDING" --out "$SHARDS" >>"$OUT/record.log" 2>&1 &
    worker=$((worker + 1))
done
"$PYTHON" -m lab.lift.train --shards "$SHARDS" --out "$OUT" --budget "$BUDGET" --began "$BEGAN" \
    --recording "$((RECORDING + $(date +%s) - BEGAN))" ${TRAIN:-}
wait
