#!/bin/sh
# Episodes of a scripted leader, with take-overs from a policy, and what they are worth: LeRobot's own loader returns
# them as written, and edge-train and LeRobot's own lerobot-train make some steps on them. All of it is simulated.
# PYTHON is ours, LEROBOT the folder of LeRobot's; BUNDLE is the lifting policy's.
set -eu
WORK=${1:-runs/led}
EPISODES=${EPISODES:-50} CORRECTED=${CORRECTED:-2} STEPS=${STEPS:-20}
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HOME="$WORK/hf"

"$PYTHON" -m tools.scripted_leader --bundle "$BUNDLE" --out "$WORK" \
  --episodes "$EPISODES" --corrected "$CORRECTED"
"$LEROBOT/bin/python" tools/lerobot_compat.py read "$WORK/data"

"$PYTHON" -m export.commands.train prior --data "$WORK/data" --out "$WORK/prior" --steps "$STEPS" --batch 16

rm -rf "$WORK/trained"
"$LEROBOT/bin/lerobot-train" \
  --dataset.repo_id=local/led --dataset.root="$WORK/data" --dataset.video_backend=pyav \
  --output_dir="$WORK/trained" --seed=1 --policy.type=act --policy.device=cpu --policy.push_to_hub=false \
  --policy.pretrained_backbone_weights=null --policy.dim_model=64 --policy.n_heads=4 --policy.dim_feedforward=128 \
  --policy.n_encoder_layers=1 --policy.n_decoder_layers=1 --policy.chunk_size=12 --policy.n_action_steps=5 \
  --batch_size=8 --num_workers=0 --steps="$STEPS" --log_freq=5 --env_eval_freq=0 --wandb.enable=false
