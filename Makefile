# make run     the studio on the demo model, in your browser
# make test    all tests, two files at a time; ARGS="--numprocesses 0 -k people" for some, one after the other
# make check   style, types, walls between rooms, Dockerfile, secrets in the tree, and what `make audit` looks at
# make audit   known vulnerabilities of all that is installed, where a service on the network can be asked
# make fuzz    damaged files of every kind, read by every reader; FUZZ="--seed 2 --inputs 100000" for more
# make load    20 people in browsers on one studio for ten minutes; LOAD="--clients http --seconds 60" for less
# make fuzz-guided   the same, led by the lines that an input reaches; GUIDED="--kind recipe --seconds 600"
# make kills   200 jobs killed at random moments, and their bytes compared; KILLS="--seed 2 --only sweep" for others
# make bench   all budgets of the design, measured; writes bench.json

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: run test check scan audit fuzz fuzz-guided load kills bench clean

run: .venv/.installed
	$(BIN)/python app.py $(ARGS)

test: .venv/.installed-dev
	@command -v $${ESPALIER_CHROMIUM:-chromium} >/dev/null || $(BIN)/playwright install chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

check: .venv/.installed-dev scan audit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

scan: .venv/.installed-dev
	.ci/scan $(BIN)

audit: .venv/.installed-dev
	$(BIN)/python .ci/audit.py

fuzz: .venv/.installed-dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.run --inputs 20000 $(FUZZ)

load: .venv/.installed-dev
	$(BIN)/python -m tests.load.run $(LOAD)

fuzz-guided: .venv/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.guided $(GUIDED)

kills: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.kills.run --kills 200 $(KILLS)

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
