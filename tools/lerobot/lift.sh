#!/bin/sh
# Records demonstrations of one object, trains an ACT on them by LeRobot's own lerobot-train, and counts what it lifts:
# through engines, runtime and firmware, and by LeRobot's own torch code. PYTHON is ours, LEROBOT the folder of LeRobot's.
set -eu
WORK=${1:-runs/lerobot-lift}
LIFTS=${LIFTS:-800} STEPS=${STEPS:-3250} DECAY=${DECAY:-1000} EPISODES=${EPISODES:-100} OBJECT=${OBJECT:-red cube}
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HOME="$WORK/hf"

"$PYTHON" -m lab.experts.teleoperation --object "$OBJECT" --episodes "$LIFTS" --jobs 2 --out "$WORK/data"

train() { # NAME and more options; the rate falls in the second part only
  name=$1
  shift
  "$LEROBOT/bin/lerobot-train" --dataset.repo_id=local/lift --dataset.root="$WORK/data" --output_dir="$WORK/$name" \
    --dataset.eval_split=0.02 --eval_steps=500 --max_eval_samples=320 \
    --policy.device=cpu --policy.push_to_hub=false --use_policy_training_preset=false --optimizer.type=adamw \
    --optimizer.lr=4e-4 --optimizer.weight_decay=1e-4 --optimizer.grad_clip_norm=10 --batch_size=16 --num_workers=1 \
    --save_freq=250 --log_freq=25 --env_eval_freq=0 --seed=1 --wandb.enable=false "$@"
}

[ -e "$WORK/constant/checkpoints/last" ] || train constant --steps="$STEPS" \
  --policy.type=act --policy.pretrained_backbone_weights=null --policy.use_vae=false --policy.use_amp=true \
  --policy.dim_model=256 --policy.dim_feedforward=512 --policy.n_encoder_layers=2 --policy.dropout=0.0 \
  --policy.chunk_size=12 --policy.n_action_steps=5 \
  --scheduler.type=constant_with_warmup --scheduler.num_warmup_steps=100
[ -e "$WORK/decayed/checkpoints/last" ] || train decayed --steps="$DECAY" \
  --policy.path="$WORK/constant/checkpoints/last/pretrained_model" --scheduler.type=cosine_decay_with_warmup \
  --scheduler.num_warmup_steps=50 --scheduler.num_decay_steps="$DECAY" --scheduler.peak_lr=4e-4 --scheduler.decay_lr=1e-6

"$LEROBOT/bin/python" -m tools.lerobot.ship "$WORK/decayed/checkpoints/last/pretrained_model" "$WORK/act"
"$PYTHON" -m export.commands.export "$WORK/act" -o "$WORK/bundle" --dataset "$WORK/data" --units degrees
"$PYTHON" -m bench.evaluate --arm so101 --object "$OBJECT" --bundle "$WORK/bundle" --episodes "$EPISODES" \
  --json "$WORK/runtime.json"
"$LEROBOT/bin/python" -m tools.lerobot.evaluate "$WORK/act" --object "$OBJECT" --episodes "$EPISODES" \
  --json "$WORK/lerobot.json"
