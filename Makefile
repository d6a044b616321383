# make setup | repro | claims | full | tune | timings | rehearsal | test | test-fast | lint | clean-work. ARGS are
# arguments of `dvc repro`, as in `make repro ARGS="-f base"`; TABLES are those of `make claims` and `make full`, all if
# left out.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
READY := .venv/.ready
# One worker more than there are cores (tests/conftest.py) and a thread a worker; a file's tests stay together, for some share a chain that takes minutes, and
# files keep the order of tests/conftest.py, the slow ones first.
PYTEST := OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: setup repro claims full tune timings rehearsal test test-fast lint clean-work

# A second call at the same time waits until the first has installed everything, and then has nothing to do; on a network
# disk that knows no locks nobody waits.
LOCKED := import fcntl, os, subprocess, sys; os.makedirs(".work", exist_ok=True); lock = open(".work/setup.lock", "w"); \
	exec("try: fcntl.flock(lock, fcntl.LOCK_EX)\nexcept OSError: pass"); sys.exit(subprocess.call(sys.argv[1:]))

setup:
	@$(PYTHON) -c '$(LOCKED)' $(MAKE) --no-print-directory -s $(READY)

$(READY): requirements.txt requirements-test.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make setup PYTHON=python3.12")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check -r requirements.txt -r requirements-test.txt
	.venv/bin/python -m pip install --disable-pip-version-check --no-deps -e .
	touch $@

# Regenerates whatever is out of date of the table that params.yaml names: JOBS stages at once, by default one a core or
# GPU, or on the workers of the Dask scheduler whose address ENGINE is (docs/scale.md).
repro: setup
	.venv/bin/python -m eraseflow repro $(if $(JOBS),--jobs $(JOBS)) $(if $(ENGINE),--engine $(ENGINE)) -- $(ARGS)

# The table that README and page claim anything from, three seeds, into reports/claims; hours, goes on after a stop.
claims: setup
	.venv/bin/python -m eraseflow claims $(if $(ENGINE),--engine $(ENGINE)) $(TABLES) -- $(ARGS)

# The table of all methods, concepts and attacks of the emoji testbed, into reports/full; hours, goes on after a stop.
full: setup
	.venv/bin/python -m eraseflow full $(if $(ENGINE),--engine $(ENGINE)) $(TABLES) -- $(ARGS)

# As many trials of the settings of every method and attack on the validation concepts, into reports/tuning; hours, goes
# on after a stop. It changes no setting.
tune: setup
	.venv/bin/python -m eraseflow.project.dvc repro --force $(ARGS) tuning/dvc.yaml

# What was measured of the cells that are here, into reports/timings.csv; the next `make repro` shows it in the report.
timings: setup
	.venv/bin/python -m eraseflow timings

# The paper's table cut down, on networks of the true size with random weights, in a folder outside: what breaks, and what
# each stage takes. `make rehearsal ARGS="FOLDER --pixels 256"`.
rehearsal: setup
	.venv/bin/python benchmarks/rehearsal.py $(ARGS)

test: lint
	$(PYTEST)

test-fast: setup
	$(PYTEST) -m "not slow and not gpu"

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

# Unfinished work of stages that were stopped, without which they start over, the folders of `make claims` and `full`, and
# the cells of earlier tables, which are in DVC's cache when they are finished.
clean-work:
	@test ! -x .venv/bin/python || .venv/bin/python -m eraseflow clean-work
