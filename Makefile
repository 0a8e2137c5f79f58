SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
SPARK35 := .venv-spark35
SOURCES := pyproject.toml requirements.txt scripts/setup.sh
NATIVE := scripts/native.sh native/pyproject.toml $(wildcard native/src/mission9_native/*)
# Where it is set, each process compiles all that it imports again: uv, other than pip, does not at installation.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help:  ## List the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

.PHONY: install
install: .venv/.runtime .venv/.classes  ## Set up: .venv with everything pinned, mission9, and a Java

.PHONY: demo
demo: .venv/.demo  ## Set up what it needs, then run the whole pipeline on generated pictures of fruit
	$(BIN)/mission9 demo

.PHONY: s3-demo
s3-demo: .venv/.runtime s3-server  ## Run the demo with images and results on a real S3 server of its own (ARGS=--keep: it stays)
	PYTHONPATH=. $(BIN)/python scripts/s3_demo.py $(ARGS)

.PHONY: s3-server
s3-server: .venv-s3-server/.ready  ## Install that server, OpenStack Swift, for make s3-demo and tests/s3

# Many tests wait, for processes and servers: two more than there are cores keep all of these busy.
JOBS ?= $(shell echo $$(( $$(nproc) < 8 ? $$(nproc) + 2 : 8 )))
SIDE_BY_SIDE := --numprocesses $(JOBS) --dist loadgroup --no-loadscope-reorder
# These are as many threads as there is work for: more of them would only wait for each other, and busily.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/pytest $(SIDE_BY_SIDE)

.PHONY: test
test: .venv/.dev s3-server  ## Set up, then lint, check types and run the tests (JOBS=1: one after the other)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory --jobs 2 types fast-tests

.PHONY: types fast-tests
types:
	$(BIN)/mypy
fast-tests:
	$(PYTEST) -m "not slow"

.PHONY: test-changed
test-changed: .venv/.dev s3-server  ## Run the tests of what is not committed, nearest first, for two minutes (SINCE=main: of a branch)
	$(PYTEST) -m "not slow" --changed $(or $(SINCE),HEAD)

.PHONY: test-slow
test-slow: .venv/.dev .venv/.classes s3-server  ## Run the tests that take longer: whole commands, a cluster, kills, the README
	$(PYTEST) -m slow

.PHONY: test-spark35
test-spark35: $(SPARK35)/.ready  ## Run the Spark tests on Spark 3.5, in an environment of its own
	$(ONE_THREAD) $(SPARK35)/bin/pytest $(SIDE_BY_SIDE) -m "spark and not real" tests/pipeline/test_pipeline.py tests/test_spark_pipeline.py \
		tests/cli/test_cli.py tests/runners/test_runners.py tests/scenarios/test_poisonous_images.py

# With any Python that has torch, pytest and the few others: neither .venv nor the tools that it holds are needed. What
# pyproject.toml asks of pytest would fail where a plug-in is absent, or where a library of the GPU's warns.
.PHONY: test-gpu
test-gpu:  ## Run the GPU tests with PYTHON, on a machine with a GPU (tests/models/engines/test_gpu.py says what it needs)
	PYTHONPATH=src $(PYTHON) -c 'import sys; from mission9.devices import why_no_cuda; sys.exit(why_no_cuda() or 0)'
	PYTHONPATH=src $(PYTHON) -m pytest -o addopts=-ra -o filterwarnings=default tests/models/engines/test_gpu.py

.PHONY: bench-gpu
bench-gpu:  ## Measure the GPU with PYTHON: speed, what bounds it, fidelity (ARGS="--images DIR --json FILE")
	$(PYTHON) benchmarks/gpu.py $(ARGS)

.PHONY: gpu-figures gpu-rehearsal
gpu-figures:  ## Test and measure a GPU with PYTHON, whole runs included (ARGS="--images DIR --json FILE")
	PYTHONPATH=src:. $(PYTHON) benchmarks/gpu_sitting.py $(ARGS)
gpu-rehearsal: .venv/.dev  ## Run all of gpu-figures on the CPU, for few images: shows that it works, and measures nothing
	$(BIN)/python benchmarks/gpu_sitting.py --rehearse $(ARGS)

.PHONY: image-test
image-test:  ## Build the images without a daemon, as root, and see that all in them answers (ARGS="--target gpu")
	PYTHONPATH=. $(PYTHON) scripts/image_test.py $(ARGS)

.PHONY: imports
imports:  ## Draw the graph of imports in the package: rooms, floors, circles, lines (ARGS=--arrows)
	$(PYTHON) scripts/imports.py $(ARGS)

.PHONY: wheel
wheel: .venv/.runtime  ## Build dist/mission9-….whl, and the same as dist/mission9.zip, for spark-submit --py-files
	rm -rf build dist
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	cp dist/mission9-*.whl dist/mission9.zip

.PHONY: notebook
notebook: .venv/.notebook  ## Open the notebook in Jupyter Lab, on http://localhost:8889
	$(BIN)/jupyter lab --ip 127.0.0.1 --port 8889 --port-retries 0 notebooks/mission9.ipynb $(ARGS)

.PHONY: mlflow-ui
mlflow-ui: .venv/.runtime  ## Show what was logged with --mlflow local, on http://localhost:5009
	$(BIN)/python scripts/mlflow_ui.py $(ARGS)

.PHONY: docs
docs: .venv/.docs  ## Build the documentation into site/; a warning is an error (ARGS="--site-dir DIR")
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

.PHONY: bench
bench: .venv/.dev $(if $(filter pack,$(ARGS)),s3-server)  ## Compare speed with what others write, and write docs/performance.md (ARGS="--only large": many images; also listing, pack, soak)
	$(BIN)/python benchmarks/bench.py $(ARGS)

.PHONY: bench-peers
bench-peers: .venv-peers/.ready  ## Install Ray and Daft, for make bench to measure too, in an environment of their own

.PHONY: chaos
chaos: .venv/.dev  ## Kill runs at random moments, for 20 minutes, and hold their results against a run in peace (ARGS="--rounds 9")
	$(BIN)/python benchmarks/chaos.py $(ARGS)

.PHONY: fuzz
fuzz: .venv/.dev  ## Decode and extract 200,000 damaged images, and count what becomes of them (ARGS="--inputs 20000")
	$(BIN)/python benchmarks/fuzz.py $(ARGS)

LOCK := .venv-tools/bin/uv pip compile --quiet --generate-hashes --python-version 3.12 --python-platform linux \
	--no-annotate --custom-compile-command "make lock"

OLDEST := .venv-tools/bin/uv pip compile --quiet --no-deps --python-version 3.11.0 --python-platform linux

.PHONY: lock
lock: .venv-tools/.ready  ## Write requirements.lock and the images' locks, with hashes, from requirements*.txt (Linux, Python 3.12); see that 3.11.0 takes all
	$(LOCK) --output-file requirements.lock requirements.txt
	$(LOCK) --output-file docker/requirements.lock --excludes <(echo torch) --constraints requirements-dev.txt \
		requirements.txt requirements-notebook.txt <(echo kagglehub)
	$(LOCK) --output-file docker/torch-gpu.lock --excludes <(sed '/^torch==/d; s/==.*//' requirements.txt) \
		<(echo torch==2.10.0)
	for file in requirements*.txt; do $(OLDEST) --output-file /dev/null $$file || exit 1; done

.PHONY: audit
audit: .venv-tools/.ready  ## Ask for known holes in what requirements.lock holds; lint the workflows
	.venv-tools/bin/pip-audit --require-hashes --disable-pip --strict --requirement requirements.lock
	.venv-tools/bin/zizmor --offline .github/workflows

.PHONY: deploy-check
deploy-check: .venv-deploy/.ready  ## Lint what is in deploy/: CloudFormation, policies, shell, Databricks, Kubernetes
	.venv-deploy/bin/cfn-lint --regions eu-west-1 eu-west-3 eu-central-1 --template deploy/emr/stack.yaml
	.venv-deploy/bin/checkov --skip-download --quiet --compact --framework cloudformation --file deploy/emr/stack.yaml
	.venv-deploy/bin/checkov --skip-download --quiet --compact --framework kubernetes --file deploy/kubernetes/spark-application.yaml
	.venv-deploy/bin/shellcheck src/mission9/deploy/files/*.sh
	.venv-deploy/bin/python scripts/check_deploy.py

.PHONY: weights
weights: .venv/.dev  ## Train the bundled demo weights again (20 minutes on two cores)
	$(BIN)/python scripts/train_demo_weights.py --output src/mission9/data/mobilenet_v2-demo.safetensors

.PHONY: clean
clean:  ## Delete environments, caches and the demo's results
	rm -rf .venv $(SPARK35) .venv-peers .venv-s3-server .venv-tools .venv-deploy .pytest_cache .mypy_cache .ruff_cache data/demo

SETUP := PYTHON=$(PYTHON) scripts/setup.sh
JAVA := scripts/java.sh

# Spark, OpenVINO and the page: no torch, no MLflow, no nncf.
.venv/.demo: $(SOURCES)
	$(SETUP) .venv --constraint requirements.txt --editable '.[spark,openvino,report]'
	$(JAVA) .venv
	@touch $@

.venv/.runtime: $(SOURCES) $(NATIVE)
	$(SETUP) .venv -r requirements.txt --editable .
	scripts/native.sh .venv
	$(JAVA) .venv
	@touch .venv/.demo $@

.venv/.dev: $(SOURCES) $(NATIVE) requirements-dev.txt
	$(SETUP) .venv -r requirements.txt -r requirements-dev.txt --editable .
	scripts/native.sh .venv
	$(JAVA) .venv
	@touch .venv/.demo .venv/.runtime $@

# An archive of Java's classes, with which Spark starts faster.
.venv/.classes: .venv/.runtime
	$(BIN)/python scripts/class_archive.py
	@touch $@

.venv/.notebook: .venv/.dev requirements-notebook.txt
	$(SETUP) .venv -r requirements-notebook.txt
	@touch $@

.venv/.docs: .venv/.runtime requirements-docs.txt
	$(SETUP) .venv -r requirements-docs.txt
	@touch $@

$(SPARK35)/.ready: requirements-spark35.txt scripts/setup.sh
	$(SETUP) $(SPARK35) -r requirements-spark35.txt --editable .
	$(JAVA) $(SPARK35)
	@touch $@

.venv-%/.ready: requirements-%.txt
	$(SETUP) .venv-$* -r $<
	@touch $@
