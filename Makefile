# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test quick check bench powercut soak lock image aarch64 clean

help:
	@echo "make demo    set up, then run the main job end to end on real data (a minute)"
	@echo "make test    set up, then run every test"
	@echo "make quick   every test that is not marked slow"
	@echo "make check   ruff, mypy, import-linter"
	@echo "make bench   every benchmark, quickly"
	@echo "make powercut  cut the power at every call of the agent, every disk, every kill: hours"
	@echo "make soak    an hour of two collectors, killed again and again: every record is counted once"
	@echo "make image   build the image from Debian's packages, without a daemon; keep it in build/image"
	@echo "make aarch64 the agent on an emulated aarch64, its golden outputs against this machine's"
	@echo "make lock    what the image installs, anew: versions and hashes (locks/)"
	@echo "make clean   remove the virtual environment and what the demo left"

demo: $(VENV)/.installed-demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed-dev
	BIN=$(BIN) tests/run.sh

quick: $(VENV)/.installed-dev
	BIN=$(BIN) tests/run.sh -m "not slow"

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script --quick || exit 1; done

powercut: $(VENV)/.installed-dev
	$(BIN)/python tests/powercut/sweep.py

soak: $(VENV)/.installed-dev
	$(BIN)/python tests/fleet/scale/soaking.py --minutes 60

# Hashes of every file of every version, for any Python and processor: --universal.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --only-binary :all: \
  --generate-hashes --no-annotate --custom-compile-command 'make lock'

image: $(VENV)/.installed-dev
	rm -rf build/image && mkdir -p build/image
	tests/install/image.sh build/image
	EDGE_IMAGE=build/image $(BIN)/pytest -s tests/install/test_image.py

aarch64: $(VENV)/.installed-dev
	$(BIN)/pytest -s tests/install/test_aarch64.py

lock: $(VENV)/.installed-dev
	$(LOCK) -o locks/device.txt pyproject.toml
	$(LOCK) --extra api --extra postgres --extra otel -o locks/fleet.txt pyproject.toml
	$(BIN)/python -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')" \
	  | $(LOCK) -o locks/build.txt -

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edge-pack needs Python 3.11 or later; say which with: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python cannot make a virtual environment here. On Debian or Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	@echo "installing edge-pack with its build and fleet extras into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[build,fleet]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml .ci/constraints.txt | $(BIN)/python
	@echo "installing edge-pack for development into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed-demo

clean:
	rm -rf $(VENV) demo-run build dist
