# `make demo` and `make test` do all their own set-up: they need Python 3.11 or 3.12, git and make, nothing else.

VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
RUN = $(VENV)/bin/python
READY = $(VENV)/.ready
ROBOMIMIC = $(VENV)/.robomimic
IMAGE = $(VENV)/.image

PUSHT_DATA ?=
PUSHT = $(or $(PUSHT_DATA),data/pusht/pusht_cchi_v7_replay.zarr)
DEMO_STEPS ?= 3000
DEMO = outputs/demo_pusht

.PHONY: demo demo-pusht test lint bench bench-gpu readme

demo: $(READY)
	$(RUN) scripts/demo.py

# Push-T: train a small policy for some minutes, push the T in 1 to 16 network evaluations, write table, plot and videos
demo-pusht: $(READY)
	$(if $(PUSHT_DATA),,$(RUN) scripts/download_data.py task=pusht)
	test -f $(DEMO)/finished.json || $(RUN) scripts/train_policy.py task=pusht data.path=$(PUSHT) \
		trainer.steps=$(DEMO_STEPS) output=$(DEMO)
	$(RUN) scripts/eval_policy.py checkpoint=$(DEMO) steps=[1,2,4,8,16] episodes=20 overwrite=true
	@echo "The whole training: $(RUN) scripts/train_policy.py task=pusht data.path=$(PUSHT)"

test: $(READY) $(ROBOMIMIC) $(IMAGE)
	$(RUN) -m pytest

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(READY) $(IMAGE)
	$(RUN) scripts/benchmark_training_step.py device=cpu
	$(RUN) scripts/benchmark_rollouts.py task=lift
	$(RUN) scripts/benchmark_latency.py
	$(RUN) scripts/benchmark_loop.py
	$(RUN) scripts/benchmark_images.py device=cpu

bench-gpu: $(READY) $(IMAGE)
	$(RUN) scripts/benchmark_training_step.py device=cuda network=unet_dp trainer=gpu
	for network in unet_small unet_dp; do $(RUN) scripts/benchmark_latency.py device=cuda network=$$network rounds=5000 \
		'modes=[eager,inductor,cuda_graph]' result=results/latency_gpu_$$network.json overwrite=true || exit 1; done
	$(RUN) scripts/benchmark_latency.py device=cuda vision=resnet18 'images={front: [84, 84, 3], wrist: [84, 84, 3]}' \
		rounds=5000 'modes=[eager,inductor,cuda_graph]' result=results/latency_gpu_images.json overwrite=true
	$(RUN) scripts/benchmark_loop.py device=cuda mode=cuda_graph 'rates_hz=[500]' result=results/loop_gpu.json overwrite=true
	for network in dit_b2 dit_xl2; do $(RUN) scripts/benchmark_images.py device=cuda network=$$network channels=4 size=32 \
		classes=1000 trainer=gpu_image trainer.batch_size=128 count=64 result=results/images_gpu_$$network.json \
		overwrite=true || exit 1; done

# the tables and pictures of the README, from results/
readme: $(READY)
	$(RUN) scripts/update_readme.py

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed: install it, or say make PYTHON=path"; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[pusht,report,wandb,tensorboard,server,dev]'
	@# robosuite's keyboard (pynput) is compiled: where there is no C compiler, take the simulator without it
	@if command -v cc >/dev/null; then $(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[robosuite]'; \
	else $(RUN) -m pip install --quiet --no-deps --constraint constraints.txt robosuite && \
		$(RUN) -m pip install --quiet --constraint constraints.txt 'mujoco<3.10' numba termcolor; fi
	@# OpenCV, which gym-pusht draws with, comes with a window system that needs libGL: without one, take the headless one
	$(RUN) -c 'import cv2' 2>/dev/null || \
		$(RUN) -m pip install --quiet --force-reinstall --no-deps opencv-python-headless==4.11.0.86
	touch $(READY)

# image_gen and the export of policies, which training and evaluation of robot policies do without
$(IMAGE): $(READY)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[image,huggingface,timm,export]'
	touch $(IMAGE)

# robomimic, for the comparison with its policies only. A part of it is compiled by a setup that calls cmake: pip's
# isolated build would hide the one of the environment
$(ROBOMIMIC): $(READY)
	@if command -v c++ >/dev/null; then \
		$(RUN) -m pip install --quiet --constraint constraints.txt cmake 'setuptools>=77' && \
		PATH="$(abspath $(VENV))/bin:$$PATH" CMAKE_POLICY_VERSION_MINIMUM=3.5 \
			$(RUN) -m pip install --quiet --constraint constraints.txt --no-build-isolation egl_probe && \
		$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[robomimic]'; \
	else echo "note: no C++ compiler: robomimic is left out; all but its own policies and their tests works without it"; fi
	touch $(ROBOMIMIC)
