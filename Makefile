# Everything sets itself up: `make demo` and `make test` work on a fresh Debian or Ubuntu with Python 3.11+ and a C compiler.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Files that decide what gets installed.
PINS   := pyproject.toml tools/setup.sh
# Loops that ours is measured beside; without their dependencies, of which the loops need none.
OTHER_LOOPS := openpi-client==0.1.2 lerobot==0.4.4

# Tests that need nothing special, and the part of them that computes or decides in no time but its own.
ANYWHERE := not slow and not gpu and not hil
# A test file to each process, so that what a file sets up for itself is set up once; the long ones come first.
PYTEST   := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=25
FILEWISE := --dist loadfile --no-loadscope-reorder
# A test that waits for ever ends its process with every thread's stack, in place of the whole run's time.
ENDLESS  := -o faulthandler_timeout=400 -o faulthandler_exit_on_timeout=true --max-worker-restart 0
# To import every test file takes longer than many a test; those of the lane say so.
NAMING    = $(sort $(shell grep -rlw --include='test_*.py' $(1) tests))

EXPORT   := $(BIN)/edge-export checkpoints/reach.pt -o demo/bundle --task "reach the red cube"

# One thread per library call unless told otherwise: two libraries that both spin on two cores are slower than one.
export OMP_NUM_THREADS ?= 2
# What a container's image may forbid: each of the many processes would compile all again that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo check ends flood hostile-files test test-simulated test-realtime logic core-coverage core-sanitize core-budget core-fuzz core-mutants test-slow test-hil test-gpu gpu-check lint core fuzz mutants latency faults network stops soak bench bench-quick bench-paper format generate goals evaluate prior precisions paper-size paper-size-tensorrt aarch64 extras wheels wheel-check data-prior lerobot-fixtures lerobot-lift lerobot-tray lerobot-recording lerobot-older lerobot-groot lerobot-full-size lerobot-speed lerobot-plugin doors ray film film-slow pi05-full-size checkpoint checkpoint-lift clean

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(STAMP) ## create .venv with everything that demo and tests need

$(STAMP): $(PINS)
	PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/setup.sh
	touch $(STAMP)

$(VENV)/.tests: $(PINS)
	PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/setup.sh tests
	touch $(STAMP) $@

demo: setup ## export the shipped checkpoint and drive a simulated Franka to the red cube
	$(BIN)/python tools/demo.py --out demo

check: $(VENV)/.tests ## format, lint, types, and the tests of pure logic: a minute or two
	$(MAKE) --no-print-directory --output-sync=target -j2 lint logic

# One thread a library: as fast with these small networks, and four times as fast on a machine that is busy. Exports are
# made once for all of it, in a folder that goes with it.
test: $(VENV)/.tests ## what CI runs: check, the core's own checks, and every test that needs no special hardware
	$(MAKE) --no-print-directory --output-sync=target -j2 lint core-coverage core-sanitize core-budget
	$(MAKE) --no-print-directory core-fuzz core-mutants
	shared=$$(mktemp -d) && trap 'rm -rf "$$shared"' EXIT && export VLA_EDGE_SHARED="$$shared" && \
	$(MAKE) --no-print-directory test-simulated test-realtime

test-simulated: $(VENV)/.tests ## the tests on a simulated clock, and those that compute, two at a time
	$(PYTEST) $(ENDLESS) -n 2 $(FILEWISE) -m "$(ANYWHERE) and not real_time"

test-realtime: $(VENV)/.tests ## the tests in real time, one at a time or side by side; lists what this machine was too busy to judge
	$(PYTEST) $(ENDLESS) -n 2 --dist loadgroup -m "$(ANYWHERE) and side_by_side" $(call NAMING,side_by_side)
	$(PYTEST) $(ENDLESS) -m "$(ANYWHERE) and real_time and not side_by_side" $(call NAMING,real_time)

logic: $(VENV)/.tests
	$(PYTEST) -q -n 2 $(FILEWISE) -m "$(ANYWHERE) and not real_time and not long" \
	  tests/edge tests/firmware_bridge tests/test_architecture.py tests/test_docs.py tests/test_vectors.py

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/generate.py --check

core: core-coverage core-sanitize core-budget core-fuzz core-mutants ## the firmware core: every line and branch covered, sanitizers clean, a microcontroller's budget kept, 50 mutants killed

core-coverage core-sanitize: core-%: $(VENV)/.tests
	$(BIN)/python -m tools.core_checks $*

core-budget: $(VENV)/.tests
	$(BIN)/python tools/microcontroller.py
	$(BIN)/python tools/misra.py

core-fuzz: $(VENV)/.tests
	$(BIN)/python tools/fuzz.py --seconds 10

core-mutants: $(VENV)/.tests
	$(BIN)/python tools/mutate_core.py --sample 50

fuzz: $(VENV)/.tests ## ten million inputs for the frame parser and the whole device, from the committed corpus
	$(BIN)/python tools/fuzz.py --runs 10000000

mutants: $(VENV)/.tests ## every small change to the firmware core must make a test fail
	$(BIN)/python tools/mutate_core.py

latency: setup ## how well the clocks agree, and how long a commit takes, on this machine
	$(BIN)/edge-bench link --unpaced --knots 50 --commits 500 --clock --clock-seconds 20

faults: setup ## the table of faults: 22 kinds, 50 seeds each, judged from the device's trace
	$(BIN)/python -m edge.sim.faults --seeds 50

.PHONY: can-arms
can-arms: $(VENV)/.tests ## a minute of a YAM and of a Piper on simulated CAN buses with 1 % of frames lost, and public drivers on the same arms
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s -m slow tests/firmware_bridge/adapters/damiao tests/firmware_bridge/adapters/piper
	$(BIN)/python -m pytest -q tests/test_can_arms_end_to_end.py

.PHONY: fci
fci: $(VENV)/.tests ## a minute of the lifting policy on a Franka that says no, with 1 % of its packets lost in bursts of up to ten
	$(BIN)/python -m pytest -q -s -m slow tests/test_strict_policy.py

network: setup ## ten minutes of chunks over a network line at 1 % loss and 5 ms jitter, judged from the device's trace
	$(BIN)/python -m edge.sim.network_run --minutes 10

stops: $(VENV)/.tests ## twenty million ticks of stops from any motion under any session limits, against the bound of each axis
	$(BIN)/python -m pytest -q -s -m slow tests/firmware_bridge/test_stop_bounds.py

# Both keep their sums in runs/ and go on from there; what was counted with other code goes with `rm`.
ends: setup ## up to 2,000 random ends of runs: signals, killed processes, streams and disks that go; one table; goes on where it was left: COUNT=200 make ends
	$(EXPORT)
	$(BIN)/python -m tools.ends --bundle demo/bundle --count $(or $(COUNT),2000) --add-to runs/ends.json

hostile-files: $(VENV)/.tests ## up to 100,000 generated files for every reader of files, 500 through the real commands: 50 minutes; goes on where it was left: INPUTS=1000 make hostile-files
	$(EXPORT)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hostile --inputs $(or $(INPUTS),100000) --bundle demo/bundle \
	  --policy tests/export/families/lerobot/act --add-to runs/hostile-files.json

flood: $(VENV)/.tests ## ten minutes of a flood on the page and on the line at once, beside quiet seconds of the same run; nothing else should run: MINUTES=2 make flood
	VLA_EDGE_FLOOD_MINUTES=$(or $(MINUTES),10) $(BIN)/python -m pytest -q -s -m slow tests/test_flood.py

soak: setup ## half an hour under random faults of camera, inference, line and scheduling
	$(EXPORT)
	$(BIN)/python tools/soak.py --bundle demo/bundle --out soak

bench: setup ## every measurement and the report, runs/bench/report.html, and the tables of docs/notebook/benchmarks.md; nothing else should run
	$(BIN)/python -m pip install --quiet --no-deps $(OTHER_LOOPS)
	$(BIN)/edge-bench all --out runs/bench --markdown docs/notebook/benchmarks.md

bench-quick: setup ## a smoke run of every measurement, and its report
	$(BIN)/edge-bench all --quick --out runs/bench-quick

bench-paper: setup ## engines beside eager torch and torch.compile at the paper's widths; takes long
	$(BIN)/edge-bench latency --preset paper --layers 4 --without-wire --json runs/bench/latency-paper.json

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: setup ## write the C header of the wire, the compiled profiles, the tables of PROTOCOL.md, the reference of commands
	$(BIN)/python tools/generate.py
	$(BIN)/python tools/commands_reference.py

test-slow: setup ## tests that take minutes
	$(BIN)/python -m pytest -m slow

test-hil: setup ## tests on real devices, which MOVE what is on the line: VLA_EDGE_BRIDGE=serial:/dev/ttyACM0 VLA_EDGE_CAN=can0 VLA_EDGE_CAMERA=/dev/video0 make test-hil
	$(BIN)/python -m pytest -m hil

test-gpu: setup ## tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

# Bundles of the project's own policy and of LeRobot's families, at sizes that take seconds.
gpu-check: setup ## what an NVIDIA GPU makes of bundles, at most 8 minutes: agreement, links on the device, CUDA graphs, latency; says what was not run
	$(BIN)/edge-export checkpoints/reach.pt -o demo/bundle
	for name in act smolvla; do \
	  $(BIN)/edge-export tests/export/families/lerobot/$$name -o demo/$$name --arm so101 --rate 30 --units degrees \
	    --vlm tests/export/families/lerobot/smolvla_vlm; done
	$(BIN)/edge-bench gpu --bundle demo/bundle --bundle demo/act --bundle demo/smolvla --json runs/gpu.json

prior: setup ## the paper's claims about the action prior: 36 runs and the tables of docs/notebook/results.md: JOBS=2 make prior
	$(BIN)/edge-bench prior --jobs $(or $(JOBS),2) --results docs/notebook/prior-small.json
	$(BIN)/edge-bench prior report --from docs/notebook/prior-small.json --markdown docs/notebook/results.md --plots docs/notebook

goals: $(VENV)/.tests ## from goals to knots: the table of kinds on all arms, 10,000 random chunks, 1,000 beside an independent optimum
	OMP_NUM_THREADS=1 $(BIN)/edge-bench goals --json runs/goals.json
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s -m slow tests/edge/plan/test_shaping_random.py

so101-arms: $(VENV)/.tests ## eleven simulated SO-101 as people calibrate them: folded, home, closed within a degree, holding
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "slow or not slow" tests/firmware_bridge/adapters/feetech/test_whole_arms.py

evaluate: setup ## 50 unseen scenes in lockstep through engines, runtime and firmware, judged after 8, 20 and 60 s
	$(EXPORT)
	$(BIN)/python -m bench.evaluate --bundle demo/bundle --episodes 50 --duration 8 20 60 --record --json demo/evaluation.json

precisions: setup ## FP32, BF16 and INT8 side by side: size, parity, closed loop, speed
	$(BIN)/edge-bench precisions --out runs/precision --json runs/precision/precisions.json

paper-size: setup ## export and verify the paper's 3 billion parameters: 16 GB of memory, 25 GB of disk
	$(BIN)/python tools/paper_size.py

paper-size-tensorrt: setup ## the same in BF16, and its graphs built with TensorRT-RTX for SM 86, 89 and 120, without a GPU
	$(BIN)/python tools/paper_size.py --precision bf16 --build

extras: setup ## whether every extra of the robot's side resolves for aarch64 on Python 3.10 and 3.12, as pip sees it, and the README says: a table
	$(BIN)/python tools/extras.py

aarch64: setup ## load the bundle in an aarch64 Python under QEMU; its chunks must be this machine's
	$(EXPORT)
	$(BIN)/python tools/aarch64.py --bundle demo/bundle

recompute: setup ## every chunk of a lift and of a reach in simulation again from the logged pixels: here to the last bit, in an aarch64 Python under QEMU within the gate
	$(BIN)/edge-export checkpoints/lift.pt -o runs/recompute/bundle-lift
	$(BIN)/edge-export checkpoints/reach.pt -o runs/recompute/bundle-reach
	rm -rf runs/recompute/lift runs/recompute/reach
	$(BIN)/python -m tools.recorded_run --bundle runs/recompute/bundle-lift --arm so101 --task "pick up the red cube" --episodes 1 --duration 8 --out runs/recompute/lift
	$(BIN)/python -m tools.recorded_run --bundle runs/recompute/bundle-reach --episodes 1 --out runs/recompute/reach
	for run in lift reach; do $(BIN)/python tools/aarch64.py --bundle runs/recompute/bundle-$$run --log runs/recompute/$$run/logs/episode-000.mcap || exit 1; done

wheels: setup ## the source distribution and wheels for x86-64 and aarch64 with the core compiled in, in dist/
	$(BIN)/python tools/wheels.py

wheel-check: setup ## install the wheel into an empty Python 3.10; run it without a compiler, as a user without a home
	$(BIN)/python -m pytest -m slow tests/test_wheel.py

# The generator's simulators need an older MuJoCo and numpy: an environment of their own.
DATAGEN := runs/datagen-venv

$(DATAGEN)/.installed: lab/datagen/requirements.txt lab/datagen/requirements-nodeps.txt
	"$(PYTHON)" -m venv $(DATAGEN)
	$(DATAGEN)/bin/python -m pip install --quiet --disable-pip-version-check -r lab/datagen/requirements.txt
	$(DATAGEN)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r lab/datagen/requirements-nodeps.txt
	touch $@

data-prior: $(DATAGEN)/.installed ## expert trajectories of eight arms with real physics, for stage 1: EPISODES=200 JOBS=2 make data-prior
	OMP_NUM_THREADS=1 $(DATAGEN)/bin/python -m lab.datagen --out runs/prior-data --episodes $(or $(EPISODES),200) --jobs $(or $(JOBS),1)

# LeRobot needs Python 3.12 and other versions of torch and transformers than the exporter: an environment of its own.
LEROBOT := runs/lerobot-venv
PYTHON312 ?= python3.12

$(LEROBOT)/.installed: tools/lerobot/requirements.txt tools/lerobot/requirements-nodeps.txt
	"$(PYTHON312)" -m venv $(LEROBOT)
	$(LEROBOT)/bin/python -m pip install --quiet --disable-pip-version-check -r tools/lerobot/requirements.txt
	$(LEROBOT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tools/lerobot/requirements-nodeps.txt
	touch $@

# The plugin's tests: what the robot's side needs beside LeRobot, at the versions that LeRobot has.
lerobot-plugin: $(LEROBOT)/.installed $(VENV)/.tests ## LeRobot's own tools on a simulated SO-101 through the plugin: record, replay, train, roll out, also as a bundle; 5 minutes
	$(LEROBOT)/bin/python -m pip install --quiet --disable-pip-version-check "daqp>=0.8" "mcap>=1.6" "numpy<2.3" onnxruntime "setuptools>=77" tqdm
	VLA_EDGE_LEROBOT=$(LEROBOT)/bin/python $(BIN)/python -m pytest -q -s -m slow tests/plugins

# Ray is large: an environment of its own.
RAY := runs/ray-venv

$(RAY)/.installed: pyproject.toml
	"$(PYTHON)" -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[serve]" "ray[serve]==2.60.0"
	touch $@

ray: $(RAY)/.installed $(VENV)/.tests ## a bundle behind two replicas of Ray Serve on this machine; one is killed, one hangs: no chunk is lost; 4 minutes
	VLA_EDGE_RAY=$(RAY)/bin/python $(BIN)/python -m pytest -q -s -m slow tests/test_ray_serve.py

# rerun's SDK has its viewer inside, 500 MB: an environment of its own.
RERUN := runs/rerun-venv

$(RERUN)/.installed: pyproject.toml
	"$(PYTHON)" -m venv $(RERUN)
	$(RERUN)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[rerun,sim,data]"
	touch $@

.PHONY: rerun
rerun: $(RERUN)/.installed $(VENV)/.tests ## logs of simulated runs as recordings of rerun's, and live: every topic must arrive as something that its viewer shows; a minute
	VLA_EDGE_RERUN=$(RERUN)/bin/python $(BIN)/python -m pytest -q -s -m slow tests/edge/log/test_rerun.py

doors: $(VENV)/.tests ## what comes through the doors: a million hostile messages at each, servers that go wrong at any chunk, slow networks, the cost of openpi's protocol: half an hour
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.hostile_doors --messages $(or $(MESSAGES),1000000)
	OMP_NUM_THREADS=1 VLA_EDGE_ENDS=$(or $(ENDS),200) $(BIN)/python -m pytest -q -s -m slow tests/edge/policy/test_remote.py
	$(BIN)/python -m tests.openpi_overhead

lerobot-fixtures: $(LEROBOT)/.installed ## LeRobot's own code makes small policies with random weights, and its answers, for the exporter's tests: FAMILY=act make lerobot-fixtures
	OMP_NUM_THREADS=1 $(LEROBOT)/bin/python -m tools.lerobot.fixtures $(FAMILY) --out tests/export/families/lerobot
	OMP_NUM_THREADS=1 $(LEROBOT)/bin/python -m tools.lerobot.adapter --out tests/export/families/lerobot

film: setup ## three cameras of 640x480 at 30 Hz in the log for ten minutes: lateness of the loop, frames dropped, size; 21 minutes
	$(BIN)/python -m bench.cli log --cameras 3 --film 300 --turns 2

film-slow: setup ## the same on a disk of 50 MB a second; as root
	sh tools/slow_disk.sh 50 $(BIN)/python -m bench.cli log --cameras 3 --film 300 --turns 2 --folder {}

lerobot-recording: setup $(LEROBOT)/.installed ## logs of a policy in simulation as a dataset, which LeRobot's own loader must read: BUNDLE=DIR make lerobot-recording
	rm -rf runs/recorded && $(BIN)/python -m tools.recorded_run --bundle $(BUNDLE) --out runs/recorded
	HF_HUB_OFFLINE=1 $(LEROBOT)/bin/python tools/lerobot_compat.py read runs/recorded/data

lerobot-led: setup $(LEROBOT)/.installed ## 50 simulated episodes by a scripted leader arm, two of them take-overs; read by LeRobot's loader, some steps of edge-train and lerobot-train: BUNDLE=DIR make lerobot-led
	PYTHON="$(BIN)/python" LEROBOT="$(LEROBOT)" BUNDLE="$(BUNDLE)" sh tools/lerobot/led.sh runs/led

# Beside the newest one's environment; what those versions need more of is little.
OLDER_NEEDS := draccus==0.10.0 mergedeep pyyaml-include toml imageio jsonlines deepdiff orderly-set cachebox

lerobot-older: $(LEROBOT)/.installed ## documents of the same policies by an older LeRobot's code: VERSION=0.4.4 make lerobot-older
	$(LEROBOT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
	  --target runs/lerobot-$(VERSION) lerobot==$(VERSION) $(OLDER_NEEDS)
	PYTHONPATH=runs/lerobot-$(VERSION) $(LEROBOT)/bin/python -m tools.lerobot.older \
	  tests/export/families/lerobot --out tests/export/families/older

lerobot-groot: setup ## the engines of GR00T N1.7 against LeRobot's own answers, in FP32 and BF16, and 20 s of a simulated arm: two minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "slow or not slow" -k groot tests/export/families tests/edge/sim/test_lerobot_runs.py

lerobot-lift: $(LEROBOT)/.installed setup ## record one object's lifts, train an ACT by lerobot-train, count what it lifts here and by LeRobot's own code: LIFTS=800 STEPS=4500 EPISODES=100
	PYTHON="$(BIN)/python" LEROBOT="$(LEROBOT)" sh tools/lerobot/lift.sh runs/lerobot-lift

lerobot-tray: $(LEROBOT)/.installed setup ## the same of two SO-101 that lift a tray together: LIFTS=400 STEPS=2000 EPISODES=50
	ARM=bi_so101 OBJECT=tray LIFTS=$(or $(LIFTS),400) STEPS=$(or $(STEPS),2000) EPISODES=$(or $(EPISODES),50) \
	  PYTHON="$(BIN)/python" LEROBOT="$(LEROBOT)" sh tools/lerobot/lift.sh runs/lerobot-tray

lerobot-full-size: $(LEROBOT)/.installed setup ## SmolVLA at its own size: LeRobot makes and answers it, edge-export exports and verifies it: 10 minutes, 8 GB, 5 GB of disk
	OMP_NUM_THREADS=2 $(LEROBOT)/bin/python -m tools.lerobot.fixtures smolvla_full --out runs/full
	$(BIN)/python -m tools.lerobot.full_size runs/full/smolvla_full --vlm runs/full/smolvla_full_vlm

# The shipped ACT and SmolVLA at its own size, INT8 calibrated on drawn observations: for the time alone.
SPEED := runs/lerobot-speed
AS_SO101 := --arm so101 --units degrees --samples 1

lerobot-speed: $(LEROBOT)/.installed setup ## the shipped ACT and SmolVLA at its own size by LeRobot, eager and compiled, beside our engines, and the roof: half an hour, 8 GB
	$(BIN)/edge-export checkpoints/act-lift -o $(SPEED)/act-fp32 $(AS_SO101) --rate 10
	$(BIN)/python -m tools.lerobot.drawn_int8 checkpoints/act-lift -o $(SPEED)/act-int8 --rate 10
	$(BIN)/edge-bench lerobot-speed checkpoints/act-lift --bundle $(SPEED)/act-fp32 --bundle $(SPEED)/act-int8 \
	  --lerobot $(LEROBOT)/bin/python --json $(SPEED)/act.json
	OMP_NUM_THREADS=2 $(LEROBOT)/bin/python -m tools.lerobot.fixtures smolvla_full --out $(SPEED)
	$(BIN)/edge-export $(SPEED)/smolvla_full --vlm $(SPEED)/smolvla_full_vlm -o $(SPEED)/smolvla-fp32 $(AS_SO101) --rate 30
	$(BIN)/python -m tools.lerobot.drawn_int8 $(SPEED)/smolvla_full --vlm $(SPEED)/smolvla_full_vlm -o $(SPEED)/smolvla-int8
	$(BIN)/edge-bench lerobot-speed $(SPEED)/smolvla_full --bundle $(SPEED)/smolvla-fp32 --bundle $(SPEED)/smolvla-int8 \
	  --lerobot $(LEROBOT)/bin/python --task "reach the blue cube" --calls 10 --seconds 0 --json $(SPEED)/smolvla.json

pi05-full-size: setup ## pi0.5 at its own size, random weights: 40 minutes, 18 GB, 25 GB of disk
	$(BIN)/python -m tools.lerobot.random_pi05 --out runs/full/pi05
	$(BIN)/python -m tools.lerobot.full_size runs/full/pi05 --tokenizer tests/export/families/lerobot/pi_tokenizer --longest-s 2400 --largest-gb 18

checkpoint: setup ## make the shipped checkpoint again, from nothing (hours on two cores); PERCENT=1 only shows that all of it runs
	VENV="$(VENV)" sh tools/make_checkpoint.sh

checkpoint-lift: setup ## train the lifting policy of both arms on one NVIDIA GPU: BUDGET=400 make checkpoint-lift
	PYTHON="$(BIN)/python" TRAIN="$(TRAIN)" sh lab/lift/job.sh $(or $(BUDGET),400) runs/lift

clean: ## remove what make has made
	rm -rf $(VENV) demo build dist
