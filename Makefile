# Two commands: `make demo` shows the whole way from sound files to words, `make test` checks everything.
# Needs only make and Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo demo-short test crash-test check format bench clean

install: $(STAMP)

# The stamp makes a second call free; it is remade when the dependencies change.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "snowmelt needs Python 3.11 or newer, this is $$($(PYTHON) --version); try make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/python examples/demo.py $(DEMO_ARGS)

# The same steps on a fraction of the data, about a minute: proves that they run, not how well.
demo-short: install
	$(BIN)/python examples/demo.py --short $(DEMO_ARGS)

# Format, lint, types and layers; then the tests.
check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Trainings that are killed again and again, compared with such as were left alone: some minutes.
crash-test: install
	$(BIN)/python -m tests.crash $(CRASH_ARGS)

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist src/*.egg-info
	find src tests -name __pycache__ -type d -exec rm -rf {} +
