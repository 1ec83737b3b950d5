# Everything happens in one virtual environment, made on first use.
VENV ?= .venv
# The newest supported Python on this machine that can make a virtual environment; PYTHON=... overrides.
# Debian and Ubuntu ship python3 without the module `venv` until python3-venv is installed.
USABLE = import ensurepip, sys, venv; print(sys.version_info[:2] in ((3, 11), (3, 12), (3, 13)) or '')
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,$(if $(shell $(p) -c "$(USABLE)" 2>/dev/null),$(p))))
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CONVERTING := $(VENV)/.converting
# uv installs in a fifth of pip's time. It does not read pip's settings (a proxy, an index), so pip is asked where uv fails.
INSTALL = install() { $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e "$$1" || $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e "$$1"; }; install

DEMO ?= demo
# Processes of tests, one more than cores since many tests wait. Each takes 2 GB, and one 6 GB for the real EfficientNet-L2.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-convert lint format bench docs pictures clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

setup: $(INSTALLED) ## makes .venv with everything in it, exact versions

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { printf '%s\n' \
	  "cxr-embed needs Python 3.11, 3.12 or 3.13 with the module venv, and found none." \
	  "  Debian, Ubuntu:  sudo apt install python3 python3-venv" \
	  "  Fedora:          sudo dnf install python3.13" \
	  "  macOS:           brew install python@3.13" \
	  "  or pass one:     make $(MAKECMDGOALS) PYTHON=/path/to/python3.13" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(INSTALL) '.[test,train,explore,docs,openvino,onnx,hub,cxr-foundation,s3,azure]'
	@touch $@

demo: $(INSTALLED) ## embeds real radiographs with the reference EfficientNet-L2 and makes a report page
	@rm -rf $(DEMO)
	$(BIN)/python scripts/make_demo_data.py $(DEMO)/radiographs
	$(BIN)/python -m run_inference --flagfile=configs/local.flags --input_path $(DEMO)/radiographs --output_path $(DEMO)/embeddings --skip_errors
	@echo
	$(BIN)/python scripts/show_embeddings.py $(DEMO)/embeddings
	@echo
	$(BIN)/cxr-embed report --input_path $(DEMO)/embeddings --output_path $(DEMO)/report.html --map pca
	@echo
	@echo "A page about these embeddings, to open in a browser: $(abspath $(DEMO))/report.html"

# A file stays in one process, which makes what its tests share once; the order is in tests/conftest.py.
# There is a process for each core already, so that linear algebra gets one thread.
PYTEST = OPENBLAS_NUM_THREADS=1 $(BIN)/pytest --dist loadfile --no-loadscope-reorder

test: lint ## lint, types and all tests
	$(PYTEST) -m "not convert" -n $(JOBS) --durations=10

test-fast: $(INSTALLED) ## the tests without the real EfficientNet-L2
	$(PYTEST) -m "not slow and not convert" -n $(JOBS) --durations=10

$(CONVERTING): $(INSTALLED)
	$(INSTALL) '.[test,convert,test-convert,onnx]'
	@touch $@

COMPARED ?= convert
# Without pytest's capture of the log, which makes PyTorch log each step of an export. The exports, which take longest, come first.
test-convert: $(CONVERTING) ## what compares with PyTorch; installs it, 6 GB
	$(BIN)/pytest -m "$(COMPARED)" -n 2 -p no:logging -p no:cacheprovider --durations=10 $$(grep -rl --include="test_*.py" "mark.convert" tests | sort -r)

lint: $(INSTALLED) ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## rewrites the code in the house's format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## measures side by side; writes benchmarks/RESULTS.md
	$(INSTALL) '.[test,bench,convert,test-convert]'
	PYTHONPATH=scripts $(BIN)/python benchmarks/reading.py --write
	PYTHONPATH=scripts $(BIN)/python benchmarks/decoders.py --write
	PYTHONPATH=scripts $(BIN)/python benchmarks/decode_scale.py --write
	for name in pipeline_tax overlap originals_shape scale start_up worker record_writing; do PYTHONPATH=scripts $(BIN)/python benchmarks/$$name.py --write || exit 1; done
	PYTHONPATH=scripts $(BIN)/python benchmarks/pipeline_tax.py --model reference --write
	$(BIN)/python benchmarks/heads.py --part epoch --write
	$(BIN)/python benchmarks/heads.py --part head --write
	for name in l2-475 l2-1280 b0-224; do PYTHONPATH=scripts $(BIN)/python benchmarks/engines.py --network $$name --write || exit 1; done
	PYTHONPATH=scripts $(BIN)/python benchmarks/peers.py --write
	$(BIN)/python benchmarks/reading_back.py --write

docs: $(INSTALLED) ## builds the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "site/index.html is the first page"

pictures: $(INSTALLED) ## makes docs/pictures anew; needs Chromium
	PYTHONPATH=scripts $(BIN)/python scripts/make_pictures.py

clean: ## removes the environment and all that was made
	rm -rf $(VENV) $(DEMO) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
