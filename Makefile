# Two targets do everything on a fresh machine: `make book` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
DEVICE_VENV ?= .venv-device
COMMA := ,
# Those of the book, and not what a reader has executed beside them.
NOTEBOOKS := $(shell sed -n "s|.*file: *\(notebooks/[a-z0-9]*\) *$$|\1.ipynb|p" _toc.yml)
PAGES := $(shell grep -l "{code-cell}" book/*.md)
# Where it is set, each of some eighty processes of the tests would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: book pages test slow together alone device mutants notebooks setup clean

book: $(VENV)/book.stamp _build/executed.stamp
	$(BIN)/jupyter-book build . --all -W -n --keep-going
	$(BIN)/python -m book.check_html _build/html

# Each page of the book opened in Chromium, light and dark, wide and as on a phone: takes minutes.
pages: book $(VENV)/test.stamp
	$(BIN)/python -m book.browse _build/html

# The caches of executed notebooks and of read pages know their source only: what they compute with is watched here.
# Notebooks and pages with code are executed on every core at once, one thread each; what fails is executed again, and told,
# by the build.
# Pages are all read again, since they also hold text of the glossary and of book/_ext, and a page that was not read again
# would not warn again. With OUTPUTS=stored the cache starts from the outputs in notebooks/, for use after `make test` has
# compared them.
JCACHE := JUPYTERCACHE=_build/.jupyter_cache OMP_NUM_THREADS=1 $(BIN)/jcache
_build/executed.stamp: $(shell find hfclib data book/*.py book/explorer -type f -not -path '*/.*' -not -path '*/__pycache__/*') $(NOTEBOOKS) pyproject.toml | $(VENV)/book.stamp
	rm -rf _build/.jupyter_cache
	mkdir -p _build
	echo y | $(JCACHE) notebook add --reader myst_nb_md $(PAGES)
	$(JCACHE) notebook add $(NOTEBOOKS)
	test "$(OUTPUTS)" != stored || $(JCACHE) cache add $(NOTEBOOKS)
	$(JCACHE) project execute --executor local-parallel --timeout 300
	touch $@

# Two processes of one thread, each with whole modules and notebooks, because the cells of a notebook need one another. The
# check of types runs beside them, in the time that they wait.
test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy & types=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval -n 2 --dist loadscope --no-loadscope-reorder; tests=$$?; \
	wait $$types && exit $$tests

# The published networks whose weights are kept, measured again, and kills in the middle of a training. One test takes the
# time of one process and of two, and so has the machine to itself.
ALONE := tests/runs/test_sweep.py::test_two_workers_are_not_slower_than_one_run_after_the_other
slow: together
	$(MAKE) alone

together: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m slow -n 2 --dist worksteal --deselect $(ALONE)

alone: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m slow $(ALONE)

# The library on a second device, without a GPU: PyTorch/XLA's, in an environment of its own, since it needs the PyTorch
# that it was built with. PyPI has that for CUDA only. The options of pytest are for nbval, which is not needed there.
device: $(DEVICE_VENV)/device.stamp
	PJRT_DEVICE=CPU OMP_NUM_THREADS=1 $(DEVICE_VENV)/bin/python -m pytest --override-ini addopts= tests/device

$(DEVICE_VENV)/device.stamp: pyproject.toml Makefile
	test -x $(DEVICE_VENV)/bin/python || $(PYTHON) -m venv $(DEVICE_VENV)
	env -u PIP_CONSTRAINT $(DEVICE_VENV)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -e . "torch==2.9.*" "torch_xla==2.9.*" hypothesis pytest
	touch $@

# Which small changes of a module its own tests don't notice; for all modules that takes hours.
MODULES ?=
mutants: $(VENV)/mutants.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(MODULES) --every $(or $(EVERY),1)

$(VENV)/mutants.stamp: $(VENV)/test.stamp
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check "cosmic-ray>=8.7,<9"
	touch $@

# Execute the notebooks in place: their stored outputs are what `pytest --nbval` compares with.
notebooks: $(VENV)/test.stamp
	$(BIN)/jupyter execute --inplace $(NOTEBOOKS)

# The packages of all targets, in one call of pip.
setup: $(VENV)/book,test.stamp

clean:
	rm -rf _build $(VENV) $(DEVICE_VENV)

$(VENV)/book.stamp $(VENV)/test.stamp $(VENV)/book,test.stamp: $(VENV)/%.stamp: pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hfclib needs Python 3.11 or newer: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# What is not imported need not be compiled: that would take a third of the time.
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e '.[$*]'
	# Why torchattacks comes alone: see pyproject.toml.
	test $* = book || $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps "torchattacks>=3.5,<4"
	touch $(patsubst %,$(VENV)/%.stamp,$(subst $(COMMA), ,$*)) $@
