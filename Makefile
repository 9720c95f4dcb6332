# make run     the studio on the demo model, in your browser
# make test    all tests
# make check   style, types, walls between rooms, Dockerfile
# make fuzz    damaged files of every kind, read by every reader; FUZZ="--seed 2 --inputs 100000" for more
# make bench   all budgets of the design, measured; writes bench.json

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: run test check fuzz bench clean

run: .venv/.installed
	$(BIN)/python app.py $(ARGS)

test: .venv/.installed-dev
	@command -v $${ESPALIER_CHROMIUM:-chromium} >/dev/null || $(BIN)/playwright install chromium
	$(BIN)/python -m pytest $(ARGS)

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

fuzz: .venv/.installed-dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.run --inputs 20000 $(FUZZ)

bench: .venv/.installed-dev
	$(BIN)/python tests/benchmarks/run.py $(ARGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
