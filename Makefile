# Two targets do everything on a fresh machine: `make book` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: book test slow notebooks clean

book: $(VENV)/book.stamp _build/executed.stamp
	$(BIN)/jupyter-book build . -W -n --keep-going
	$(BIN)/python book/check_html.py _build/html

# The book's cache of executed notebooks knows their source only: what they compute with is watched here.
_build/executed.stamp: $(shell find hfclib data -name '*.py' -o -name run.json -o -name '*.webp' -o -name '*.safetensors') pyproject.toml
	rm -rf _build/.jupyter_cache
	mkdir -p _build
	touch $@

# Two processes, each with whole modules and notebooks, whose tests and cells hang together.
test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --nbval -n 2 --dist loadscope --no-loadscope-reorder

# Every published run, recomputed from its weights.
slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest tests -m slow

# Execute the notebooks in place: their stored outputs are what `pytest --nbval` compares with.
notebooks: $(VENV)/test.stamp
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

clean:
	rm -rf _build $(VENV)

$(VENV)/book.stamp $(VENV)/test.stamp: $(VENV)/%.stamp: pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hfclib needs Python 3.11 or newer: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	# Why torchattacks comes alone: see pyproject.toml.
	test $* = book || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "torchattacks>=3.5,<4"
	touch $@
