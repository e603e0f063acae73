# Each command makes what it needs, on a machine with only Python 3.11+ and make.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: serve test test-exactness test-deploy check clean

serve: .venv/serve.done  ## serve on http://127.0.0.1:8000; ARGS="--port 9000" for more
	$(BIN)/tympan serve --model embedded $(ARGS)

test: .venv/dev.done  ## every test but the slow ones
	$(BIN)/python -m pytest -m "not exactness and not deploy" $(ARGS)

test-exactness: .venv/dev.done  ## token for token against moshi and transformers: minutes
	$(BIN)/python -m pytest -m exactness $(ARGS)

test-deploy: .venv-deploy/done  ## the real `modal deploy`, against a stand-in on loopback
	.venv-deploy/bin/python -m pytest -m deploy tests/deploy $(ARGS)

check: .venv/dev.done  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf .venv .venv-deploy

.venv/serve.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[server,embedded]'
	touch $@

.venv/dev.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[dev]'
	$(INSTALL) --no-deps moshi  # it pins versions that nothing else can live with; the tests need the code alone
	touch $@

.venv-deploy/done: pyproject.toml constraints.txt
	test -x .venv-deploy/bin/python || $(PYTHON) -m venv .venv-deploy
	.venv-deploy/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[server,embedded]' modal==1.6.4 hypothesis pytest pytest-asyncio pytest-audioeval pytest-timeout jiwer
	touch $@
