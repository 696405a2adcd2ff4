# Needs Python 3.11 or newer, pip and make; `make test` also Node.js with npm. Everything goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test lint check-long clean

# Sixteen generated digits in out/, and all of them on out/grid.png. Installs the core alone: no PyTorch.
demo: .venv/core
	$(BIN)/aigc generate digits-vae -n 16 --seed 7 -o out

test: .venv/dev
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n 2 --dist loadfile --durations 20  # each trains what its files share
	-$(BIN)/coverage combine --quiet  # a process that a test killed may have left half a file
	$(BIN)/coverage report

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What takes hours: trainings, fuzzing, comparisons with other readers. Each prints its figures and fails on a miss.
# The figures are kept in benchmarks/figures, by script and date.
LONG := abc_books midi fuzz_models threads cancel openvino startup init text_budget vae_budget icons music

check-long: .venv/dev
	export FIGURES=benchmarks/figures; status=0; for name in $(LONG); do $(BIN)/python benchmarks/$$name.py || status=1; done; exit $$status

clean:
	rm -rf .venv out

.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
