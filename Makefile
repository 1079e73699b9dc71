# Two commands on a fresh machine with Python 3.10 or newer:
#   make demo   installs the project and runs the whole method on a generated world
#   make test   installs the project and runs its checks and tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test check clean

demo: $(VENV)/.demo-ready
	$(BIN)/beyonddrive demo $(DEMO_ARGS)

test: check
	$(BIN)/pytest -n 2 --dist loadfile $(TEST_ARGS)

# mypy takes a package's name from its folder, hence the link that gives the checkout the name beyonddrive.
check: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(VENV)/typecheck && ln -sfn $(CURDIR) $(VENV)/typecheck/beyonddrive
	cd $(VENV)/typecheck && $(abspath $(BIN))/mypy --config-file $(CURDIR)/setup.cfg --package beyonddrive

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# constraints.txt pins the versions that the figures in the documents were measured with.
$(VENV)/.demo-ready: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[synth]'
	touch $@

$(VENV)/.test-ready: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[synth,dev]'
	touch $@ $(VENV)/.demo-ready

clean:
	rm -rf $(VENV) build dist *.egg-info
