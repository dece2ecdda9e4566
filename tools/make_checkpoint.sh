#!/bin/sh
# Makes checkpoints/reach.pt from nothing: scenes, demonstrations, and the three stages. Every seed is fixed here.
# Takes hours on two CPU cores; stopped and started again, recording and training go on where they were.
set -eu
VENV=${VENV:-.venv}
WORK=${WORK:-runs/reach}
BIN="$VENV/bin"
mkdir -p "$WORK"

"$BIN/python" -m lab.experts.demonstrations --episodes 2000 --seed 1 --no-frames --out "$WORK/trajectories"
"$BIN/python" -m lab.experts.demonstrations --episodes 1000 --seed 0 --out "$WORK/demonstrations"
[ -f "$WORK/scenes/scenes.json" ] ||
    "$BIN/python" -m lab.experts.pointing --scenes 30000 --seed 2 --out "$WORK/scenes"
"$BIN/edge-train" point --data "$WORK/scenes" --out "$WORK/vlm" --steps 1000 --seed 0
# The shipped checkpoint knew no other prefix than those of demonstrations; later stages take over what the prior has.
"$BIN/edge-train" prior --data "$WORK/trajectories" --out "$WORK/prior" --steps 3600 --seed 0 --perturb-prefix 0
"$BIN/edge-train" vla --prior "$WORK/prior/checkpoint.pt" --vlm "$WORK/vlm/checkpoint.pt" \
    --data "$WORK/demonstrations" --out "$WORK/vla" --steps 3000 --distillation-steps 2000 --seed 0
"$BIN/edge-train" vla --prior "$WORK/prior/checkpoint.pt" --vlm "$WORK/vla/checkpoint.pt" --freeze-prior \
    --without-history 0.125 --whole-windows --data "$WORK/demonstrations" --out "$WORK/refined" \
    --steps 3600 --distillation-steps 2800 --seed 1
cp "$WORK/refined/checkpoint.pt" checkpoints/reach.pt
