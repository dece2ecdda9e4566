#!/bin/sh
# Makes checkpoints/reach.pt from nothing: scenes, demonstrations, and the three stages. Every seed is fixed here.
# Takes hours on two CPU cores; stopped and started again, recording and training go on where they were.
# PERCENT=1 makes a hundredth of every episode, scene and step, to see that all of it runs; checkpoints/ then stays as it is.
set -eu
VENV=${VENV:-.venv}
PERCENT=${PERCENT:-100}
WORK=${WORK:-runs/reach$([ "$PERCENT" = 100 ] || echo "-$PERCENT")}
BIN="$VENV/bin"
mkdir -p "$WORK"
of() { echo $((($1 * PERCENT + 99) / 100)); }

"$BIN/python" -m lab.experts.demonstrations --episodes "$(of 2000)" --seed 1 --no-frames --out "$WORK/trajectories"
"$BIN/python" -m lab.experts.demonstrations --episodes "$(of 1000)" --seed 0 --out "$WORK/demonstrations"
[ -f "$WORK/scenes/scenes.json" ] ||
    "$BIN/python" -m lab.experts.pointing --scenes "$(of 30000)" --seed 2 --out "$WORK/scenes"
"$BIN/edge-train" point --data "$WORK/scenes" --out "$WORK/vlm" --steps "$(of 1000)" --seed 0
# The shipped checkpoint knew no other prefix than those of demonstrations; later stages take over what the prior has.
"$BIN/edge-train" prior --data "$WORK/trajectories" --out "$WORK/prior" --steps "$(of 3600)" --seed 0 --perturb-prefix 0
"$BIN/edge-train" vla --prior "$WORK/prior/checkpoint.pt" --vlm "$WORK/vlm/checkpoint.pt" \
    --data "$WORK/demonstrations" --out "$WORK/vla" --steps "$(of 3000)" --distillation-steps "$(of 2000)" --seed 0
"$BIN/edge-train" vla --prior "$WORK/prior/checkpoint.pt" --vlm "$WORK/vla/checkpoint.pt" --freeze-prior \
    --without-history 0.125 --whole-windows --data "$WORK/demonstrations" --out "$WORK/refined" \
    --steps "$(of 3600)" --distillation-steps "$(of 2800)" --seed 1
# What it knows so far ends at the goal. Four more runs teach it to come back to it, and to stay.
"$BIN/python" -m lab.experts.demonstrations --episodes "$(of 800)" --seed 0 --out "$WORK/again"
"$BIN/python" -m lab.experts.demonstrations --returns --episodes "$(of 600)" --seed 3 --out "$WORK/returns"
"$BIN/python" -m lab.experts.demonstrations --settles --episodes "$(of 1600)" --seed 4 --out "$WORK/settles"
"$BIN/python" -m lab.experts.demonstrations --episodes "$(of 250)" --seed 5 --out "$WORK/more"
"$BIN/python" -m lab.experts.demonstrations --returns --episodes "$(of 250)" --seed 6 --out "$WORK/more-returns"
staying() { # FROM OUT OPTION...
    from="$WORK/$1/checkpoint.pt" out="$WORK/$2"
    shift 2
    "$BIN/edge-train" vla --prior "$from" --vlm "$from" --distillation-steps 0 --perturb-prefix 0 --without-history 0 \
        --whole-windows --threads 1 --batch 64 --rate 1e-3 --out "$out" "$@"
}
staying refined returned --data "$WORK/again" "$WORK/returns" --weights 1 1.3 \
    --seed 2 --steps "$(of 3000)" --warmup "$(of 100)" --validate-every "$(of 500)"
staying returned settled --data "$WORK/again" "$WORK/returns" "$WORK/settles" --weights 1 1 0.8 \
    --seed 3 --steps "$(of 2600)" --warmup "$(of 50)" --validate-every "$(of 650)"
staying settled closer --data "$WORK/more" "$WORK/more-returns" "$WORK/settles" --weights 1 1 1.5 --resting 0.1 \
    --seed 4 --steps "$(of 1500)" --warmup "$(of 30)"
staying closer staying --data "$WORK/more" "$WORK/more-returns" "$WORK/settles" --weights 1 0.8 2 --resting 0.03 \
    --seed 5 --steps "$(of 1300)" --warmup "$(of 30)"
[ "$PERCENT" != 100 ] || cp "$WORK/staying/checkpoint.pt" checkpoints/reach.pt
