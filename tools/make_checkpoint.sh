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
# What it knows so far ends at the goal. The last two runs teach it to come back to it, and to stay.
"$BIN/python" -m lab.experts.demonstrations --episodes 800 --seed 0 --out "$WORK/again"
"$BIN/python" -m lab.experts.demonstrations --returns --episodes 600 --seed 3 --out "$WORK/returns"
"$BIN/python" -m lab.experts.demonstrations --settles --episodes 1600 --seed 4 --out "$WORK/settles"
staying() { # OUT FROM SEED STEPS WARMUP DATA...
    out=$1 from=$2 seed=$3 steps=$4 warmup=$5
    shift 5
    "$BIN/edge-train" vla --prior "$from" --vlm "$from" --distillation-steps 0 --perturb-prefix 0 --without-history 0 \
        --whole-windows --validate-every 500 --threads 1 --rate 1e-3 --batch 64 \
        --out "$out" --seed "$seed" --steps "$steps" --warmup "$warmup" --data "$@"
}
staying "$WORK/returned" "$WORK/refined/checkpoint.pt" 2 3000 100 "$WORK/again" "$WORK/returns" --weights 1 1.3
staying "$WORK/settled" "$WORK/returned/checkpoint.pt" 3 2600 50 \
    "$WORK/again" "$WORK/returns" "$WORK/settles" --weights 1 1 0.8
cp "$WORK/settled/checkpoint.pt" checkpoints/reach.pt
