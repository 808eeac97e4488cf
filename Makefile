# make demo | test | check | bench | oldest | wheel | neighbours | bugsink | fuzz | clean. Needs Python 3.10 or newer and
# make; all else goes into $(VENV).
# Another Python beside it: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
# How many tests run at the same time.
JOBS ?= auto

bin := $(VENV)/bin
pip_install := $(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check bench bench-check oldest wheel neighbours bugsink fuzz clean

# Read from the environment or the command line by the demo: KEEP, DSN, SPOTLIGHT.
demo: $(VENV)/.demo
	$(bin)/python -m examples.demo

test: $(VENV)/.dev
	$(bin)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(bin)/ruff format --check
	$(bin)/ruff check
	$(bin)/mypy

# All stacks in one run, written to docs/benchmarks.md: about half an hour.
bench: $(VENV)-bench/.ready
	$(VENV)-bench/bin/python -m benchmarks

# A minute: fails if a request has become dearer beside sentry-sdk's own middleware.
bench-check: $(VENV)-bench/.ready
	$(VENV)-bench/bin/python -m benchmarks check

# With the oldest dependencies that pyproject.toml admits, in an environment of its own.
oldest: $(VENV)-oldest/.ready
	$(VENV)-oldest/bin/python -m pytest -q tests/oldest

# Zero code in an environment with the built wheel, a framework and a server, and nothing of this tree.
wheel: $(VENV)/.dev $(VENV)-wheel/.ready
	ZEROCODE_BIN=$(abspath $(VENV)-wheel)/bin $(bin)/python -m pytest -q tests/zerocode

# Beside Logfire and gevent, in an environment of its own.
neighbours: $(VENV)-neighbours/.ready
	$(VENV)-neighbours/bin/python -m pytest -q tests/neighbours

# Against Bugsink, a real issue tracker, in an environment of its own.
bugsink: $(VENV)-bugsink/.ready
	$(VENV)-bugsink/bin/python -m pytest -q tests/bugsink

# A minute of coverage-guided fuzzing of the policy, in an environment of its own (Linux, Python 3.11+).
FUZZ_ARGS ?= -max_total_time=60 -timeout=10
fuzz: $(VENV)-fuzz/.ready
	$(VENV)-fuzz/bin/python tests/fuzz/policy.py $(FUZZ_ARGS)

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-oldest $(VENV)-wheel $(VENV)-neighbours $(VENV)-bugsink $(VENV)-fuzz \
		build dist

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, not " + sys.version if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.created pyproject.toml constraints.txt
	$(pip_install) -e ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml constraints.txt
	$(pip_install) -e ".[demo,dev]"
	touch $@ $(VENV)/.demo

$(VENV)-bench/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e ".[fast]" \
		fastapi httpx opentelemetry-exporter-otlp-proto-http typing-extensions uvicorn
	touch $@

$(VENV)-oldest/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints-oldest.txt -e . \
		fastapi httpx hypothesis opentelemetry-instrumentation-fastapi pytest
	touch $@

$(VENV)-wheel/.ready: $(VENV)/.dev pyproject.toml constraints.txt $(wildcard otel_sentry_asgi/*.py)
	rm -rf $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(bin)/python -m build --wheel --outdir $(VENV)-wheel/dist . >/dev/null
	$(VENV)-wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		$(VENV)-wheel/dist/*.whl fastapi uvicorn opentelemetry-configuration opentelemetry-distro \
		opentelemetry-exporter-otlp-proto-http
	touch $@

$(VENV)-neighbours/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-neighbours
	$(VENV)-neighbours/bin/python -m pip install --quiet --disable-pip-version-check \
		-e . gevent==26.9.0 httpx hypothesis logfire==5.2.0 pytest typing-extensions
	touch $@

$(VENV)-bugsink/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-bugsink
	$(VENV)-bugsink/bin/python -m pip install --quiet --disable-pip-version-check \
		-e . bugsink==2.6.1 httpx hypothesis pytest typing-extensions
	touch $@

$(VENV)-fuzz/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . atheris
	touch $@
