# Two commands on a fresh machine with Python 3.11 or newer:
#   make demo   installs the project and runs the whole method on a generated world
#   make test   installs the project and runs its checks and tests
# one that makes the site, which the second does too:
#   make docs   builds build/site/index.html
# and two for the extra mmdet3d (docs/mmdet3d.md), which has an environment of its own:
#   make mmdet3d        makes it; MMCV_WHEELS is a folder with a wheel of mmcv, or the one to keep a built one in
#   make test-mmdet3d   runs the tests that need it
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

MMDET3D_VENV ?= .venv-mmdet3d
MMDET3D_BIN  := $(MMDET3D_VENV)/bin
MMCV         := mmcv==2.1.0
MMCV_WHEELS  ?= wheels

# Containers often forbid Python to keep what it has compiled: every process would then compile torch anew, which takes
# longer than most tests.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check types docs figures mmdet3d test-mmdet3d clean

demo: $(VENV)/.demo-ready
	$(BIN)/beyonddrive demo $(DEMO_ARGS)

test: check
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(TEST_ARGS)

# (the three that take minutes need one core each)
check: $(VENV)/.test-ready
	$(MAKE) --no-print-directory --jobs=2 types docs figures
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/hadolint docker/Dockerfile

# Every figure of README and docs, from the runs that are kept.
figures: $(VENV)/.test-ready
	$(BIN)/python results/check.py

# mypy takes a package's name from its folder, hence the link that gives the checkout the name beyonddrive.
types: $(VENV)/.test-ready
	mkdir -p $(VENV)/typecheck && ln -sfn $(CURDIR) $(VENV)/typecheck/beyonddrive
	cd $(VENV)/typecheck && $(abspath $(BIN))/mypy --config-file $(CURDIR)/setup.cfg --package beyonddrive

# (the variable silences a note of the theme about its successor)
docs: $(VENV)/.test-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# constraints.txt pins the versions that the figures in the documents were measured with. Of 15,000 files few are
# imported, and those are compiled when they are.
$(VENV)/.demo-ready: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[synth]'
	touch $@

$(VENV)/.test-ready: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[synth,dev,docs]'
	touch $@ $(VENV)/.demo-ready

mmdet3d: $(MMDET3D_VENV)/.ready

.PHONY: print-mmcv
print-mmcv:
	@echo $(MMCV)

test-mmdet3d: $(MMDET3D_VENV)/.ready
	$(MMDET3D_BIN)/python -m pytest -m mmdet3d $(TEST_ARGS)

# The environment stands on that of the tests, whose torch and most of the rest it shares, and has what mmdet3d
# needs in another version, above all numpy 1, in front of it. The files .pth of another environment are not read
# from there, hence the project is installed in both. PyTorch's headers want C++20, of which mmcv 2.1.0 knows
# nothing; its wheel is kept, because it takes half an hour to compile.
$(MMDET3D_VENV)/.ready: setup.cfg pyproject.toml constraints.txt $(VENV)/.test-ready
	$(BIN)/python -m venv --clear $(MMDET3D_VENV)
	$(BIN)/python -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
	    > $$($(MMDET3D_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth
	mkdir -p $(MMCV_WHEELS)
	$(MMDET3D_BIN)/pip install --quiet --no-index --no-deps --only-binary :all: --find-links $(MMCV_WHEELS) \
	    $(MMCV) || $(MAKE) mmcv-wheel
	$(MMDET3D_BIN)/pip install --quiet --find-links $(MMCV_WHEELS) --editable '.[mmdet3d]'
	$(MMDET3D_BIN)/python -m beyonddrive.openmmlab
	touch $@

.PHONY: mmcv-wheel
mmcv-wheel:
	rm -rf $(MMDET3D_VENV)/mmcv && mkdir -p $(MMDET3D_VENV)/mmcv
	$(MMDET3D_BIN)/pip install --quiet ninja 'numpy<2'
	$(MMDET3D_BIN)/pip download --quiet --no-deps --no-binary mmcv --no-build-isolation \
	    --dest $(MMDET3D_VENV)/mmcv $(MMCV)
	tar xzf $(MMDET3D_VENV)/mmcv/mmcv-*.tar.gz -C $(MMDET3D_VENV)/mmcv --strip-components 1
	sed -i 's/-std=c++1[47]/-std=c++20/g' $(MMDET3D_VENV)/mmcv/setup.py
	$(MMDET3D_BIN)/pip wheel --no-deps --no-build-isolation --wheel-dir $(MMCV_WHEELS) $(MMDET3D_VENV)/mmcv
	rm -rf $(MMDET3D_VENV)/mmcv
	$(MMDET3D_BIN)/pip install --quiet --no-index --no-deps --find-links $(MMCV_WHEELS) $(MMCV)

clean:
	rm -rf $(VENV) $(MMDET3D_VENV) build dist *.egg-info
