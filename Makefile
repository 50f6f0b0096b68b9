# make run         install what is missing, make an image from this machine's busybox, run examples/hello.yaml
# make test        the tests: pure rules, the kernel, and the behaviour of a whole server through its socket
# make test-fake   those of them that need neither root nor a program: rules and the fake engine, by any user
# make test-vm     those that look at cgroups and AppArmor, in a machine with cgroup v2 and AppArmor (docs/vm.md)
# make check       lint, formatting, strict types
# make bench       beside containerd and the bare floor; table on the terminal, rows in build/bench.json
#
# Everything is installed on first use and takes a moment: programs by apt (as root), Python packages in .venv.
# Another Python has its own: make test PYTHON=python3.13 VENV=.venv-3.13

export PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PYTEST_OPTIONS ?= -q -rR --numprocesses 3 --dist loadfile --reruns 1 --durations 40 --durations-min 3
BARE := behaviour cli core fake images kube logs server spec stats testing
VM_TESTS ?= tests/linux tests/matrix/test_matrix_labels.py tests/matrix/test_matrix_cgroups.py \
	tests/oci/test_oci_resources.py tests/oci/test_oci_stats.py
BENCH_OPTIONS ?=

.PHONY: run test test-fake test-vm check bench clean
.DELETE_ON_ERROR:

run: $(STAMPS)/venv
	@tools/install.sh run
	@PATH="$(CURDIR)/$(BIN):$$PATH" tools/hello.sh

test: $(STAMPS)/venv-dev
	@tools/install.sh run test
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

test-fake: $(STAMPS)/venv-dev
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) -m "not root" $(addprefix tests/,$(BARE))

test-vm:
	tools/vm.sh python -m pytest -q -rs $(VM_TESTS)

check: $(STAMPS)/venv-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMPS)/venv
	@case "$(BENCH_OPTIONS)" in *"--only fake" | *"--only fake --"*) ;; *) tools/install.sh run bench ;; esac
	$(BIN)/python -m bench $(BENCH_OPTIONS)

clean:
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info

$(BIN)/pip:
	@tools/install.sh python
	$(PYTHON) -m venv $(VENV)

$(STAMPS)/venv: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/venv-dev: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@mkdir -p $(STAMPS) && touch $(STAMPS)/venv $@
