#!/bin/sh
# Makes checkpoints/reach.pt from nothing: demonstrations, stage 1, stage 2. Every seed is fixed here.
# Takes hours on two CPU cores; stopped and started again, training goes on where it was.
set -eu
VENV=${VENV:-.venv}
WORK=${WORK:-runs/reach}
BIN="$VENV/bin"
mkdir -p "$WORK"

[ -f "$WORK/trajectories/dataset.json" ] ||
    "$BIN/python" -m edge.sim.demonstrations --episodes 2000 --seed 1 --no-frames --out "$WORK/trajectories"
[ -f "$WORK/demonstrations/dataset.json" ] ||
    "$BIN/python" -m edge.sim.demonstrations --episodes 1000 --seed 0 --out "$WORK/demonstrations"
"$BIN/edge-train" prior --data "$WORK/trajectories" --out "$WORK/prior" --steps 4000 --seed 0
"$BIN/edge-train" vla --prior "$WORK/prior/checkpoint.pt" --data "$WORK/demonstrations" --out "$WORK/vla" \
    --steps 8000 --distillation-steps 800 --seed 0
cp "$WORK/vla/checkpoint.pt" checkpoints/reach.pt
