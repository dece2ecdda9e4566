#!/bin/sh
# Records demonstrations of one object, trains an ACT on them by LeRobot's own lerobot-train, and counts what it lifts:
# through engines, runtime and firmware, and by LeRobot's own torch code. PYTHON is ours, LEROBOT the folder of LeRobot's;
# ARM=bi_so101 lifts a tray with two arms.
set -eu
WORK=${1:-runs/lerobot-lift} ARM=${ARM:-so101}
LIFTS=${LIFTS:-800} STEPS=${STEPS:-4500} EPISODES=${EPISODES:-100} OBJECT=${OBJECT:-red cube}
case "$ARM" in
  bi_so101) HOW="--policy.use_amp=false --policy.optimizer_lr_backbone=1e-4 --scheduler.type=cosine_decay_with_warmup \
    --scheduler.num_decay_steps=$STEPS --scheduler.peak_lr=4e-4 --scheduler.decay_lr=2e-5" ;;
  *) HOW="--policy.use_amp=true --scheduler.type=constant_with_warmup" ;;
esac
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HOME="$WORK/hf"

"$PYTHON" -m lab.experts.teleoperation --arm "$ARM" --object "$OBJECT" --episodes "$LIFTS" --jobs 2 --out "$WORK/data"

[ -e "$WORK/trained/checkpoints/last" ] || "$LEROBOT/bin/lerobot-train" \
  --dataset.repo_id=local/lift --dataset.root="$WORK/data" --output_dir="$WORK/trained" --seed=1 \
  --dataset.eval_split=0.02 --eval_steps=500 --max_eval_samples=320 \
  --policy.type=act --policy.device=cpu --policy.push_to_hub=false \
  --policy.pretrained_backbone_weights=null --policy.use_vae=false --policy.dropout=0.0 \
  --policy.dim_model=256 --policy.n_heads=8 --policy.dim_feedforward=512 \
  --policy.n_encoder_layers=2 --policy.n_decoder_layers=1 --policy.chunk_size=12 --policy.n_action_steps=5 \
  --use_policy_training_preset=false \
  --optimizer.type=adamw --optimizer.lr=4e-4 --optimizer.weight_decay=1e-4 --optimizer.grad_clip_norm=10 \
  --scheduler.num_warmup_steps=100 $HOW \
  --batch_size=16 --num_workers=1 --steps="$STEPS" --save_freq=250 --log_freq=25 --env_eval_freq=0 --wandb.enable=false

"$LEROBOT/bin/python" -m tools.lerobot.ship "$WORK/trained/checkpoints/last/pretrained_model" "$WORK/act"
"$PYTHON" -m export.commands.export "$WORK/act" -o "$WORK/bundle" --dataset "$WORK/data" --units degrees
"$PYTHON" -m bench.evaluate --arm "$ARM" --object "$OBJECT" --bundle "$WORK/bundle" --episodes "$EPISODES" \
  --json "$WORK/runtime.json"
"$LEROBOT/bin/python" -m tools.lerobot.evaluate "$WORK/act" --arm "$ARM" --object "$OBJECT" --episodes "$EPISODES" \
  --json "$WORK/lerobot.json"
