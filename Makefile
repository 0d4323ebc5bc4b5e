PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

PYTEST = $(BIN)/python -m pytest
IN_TWO = -n 2 --dist loadfile --no-loadscope-reorder  # files in the order of tests/conftest.py: the longest first
QUICK = not slow and not cluster and not process and not long
unexport PYTHONDONTWRITEBYTECODE  # pytest rewrites the asserts of a file once, not in every run

.PHONY: demo quick test test-slow test-cluster check clean

demo: .venv/demo
	$(BIN)/python jobs/write_shards.py configs/gaussian.yaml
	$(BIN)/python jobs/train.py configs/gaussian.yaml
	$(BIN)/python jobs/evaluate.py configs/gaussian.yaml

test: .venv/test check
	$(PYTEST) $(IN_TWO)

quick: .venv/test check
	PCL_QUICK=1 $(PYTEST) $(IN_TWO) -m "$(QUICK)"

test-slow: .venv/test
	$(PYTEST) -m slow -s

test-cluster: .venv/test
	$(PYTEST) -m cluster -s

check: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: pcl needs Python 3.11 or later, '$(PYTHON)' is older or missing: make PYTHON=/path/to/python3.11 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/demo: .venv/python pyproject.toml constraints.txt
	@echo "installing into .venv: about 2 GB, two or three minutes"
	$(INSTALL) -e .
	@touch $@

.venv/test: .venv/demo
	$(INSTALL) -e '.[test]'
	$(INSTALL) --no-deps open_clip_torch timm torchvision  # one loss and one model of them are used
	@touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
