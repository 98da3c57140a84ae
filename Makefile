# mcpwatch: `make demo` shows it at work, `make test` proves that it does. Both set up what they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

# One chain of stamps, so that `make -j` never runs two pips at once.
MADE := $(VENV)/.made
RUN  := $(VENV)/.run
DEV  := $(VENV)/.dev

FUZZ_SECONDS ?= 60
FAULT_TOOLS := strace logrotate tmux socat acl attr rsyslog rsyslog-gnutls faketime openssl
REAL_TOOLS  := nginx caddy logrotate

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-rules mutate faults real soak fuzz screenshots clean FORCE

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: $(RUN)  ## set up, then run a small MCP fleet with an attacker in it, and the console on top
	@$(BIN)/mcpwatch demo $(ARGS)

test: $(DEV)  ## set up, then run the tests (`make test ARGS="-k window"` for some of them)
	@env -u NO_COLOR -u TEXTUAL_THEME -u TEXTUAL_DRIVER $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadgroup $(ARGS)

check: $(DEV)  ## ruff, mypy --strict, and the order of the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(DEV)  ## measure replay against a bare JSON loop, memory, and bytes sent to the terminal
	@$(BIN)/python -m benchmarks $(ARGS)

bench-rules: $(DEV)  ## measure what the rules find and miss, what they cost, and what they hold in memory
	@$(BIN)/python -m benchmarks.rules $(ARGS)

mutate: $(DEV)  ## change every limit, timespan and level of the rules by a little: their cases must notice
	@$(BIN)/python -m tests.mutate_rules $(ARGS)

faults: $(DEV)  ## break everything on purpose, at full size, and print what held (`make faults ARGS="A1 A4"`)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  dpkg -s $(FAULT_TOOLS) >/dev/null 2>&1 || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(FAULT_TOOLS) >/dev/null; }; fi
	@$(BIN)/python -m tests.faults $(ARGS)

real: $(DEV)  ## follow real servers, proxies and clients, older versions of FastMCP too
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  dpkg -s $(REAL_TOOLS) >/dev/null 2>&1 || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(REAL_TOOLS) >/dev/null; }; fi
	@$(BIN)/python -m pytest tests/functional/test_real_*.py $(ARGS)

soak: $(DEV)  ## an hour of 2,000 records a second with rotations: memory, descriptors, nothing lost
	@$(BIN)/python -m tests.soak $(ARGS)

fuzz: $(DEV)  ## throw bytes at everything that parses, a minute each (installs atheris; FUZZ_SECONDS=3600 for longer)
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'atheris>=3.0'
	@for target in paths urls calls filters records; do \
	  $(BIN)/python tests/fuzz/fuzz_verdicts.py $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done
	@for target in transports lines compressed documents mappings rules policies; do \
	  $(BIN)/python tests/fuzz/fuzz_inputs.py $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

screenshots: $(DEV)  ## redraw the pictures of the README and the docs from the demo
	@$(BIN)/python -m docs.screenshots

clean:  ## remove everything that was set up
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamp holds the checkout's path: a moved or copied environment is rebuilt, a broken one too.
$(MADE): FORCE
	@if [ "$$(cat $@ 2>/dev/null)" != "$(CURDIR)" ] || ! $(BIN)/python -c '' 2>/dev/null; then \
	  echo "setting up $(VENV) (once)" && rm -rf $(VENV) && \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  { $(PYTHON) -m pip --python $(BIN)/python install -q --disable-pip-version-check pip 2>/dev/null || \
	    $(BIN)/python -m ensurepip -q || \
	    { echo "no pip: install python3-pip or python3-venv, then run make again" >&2 && exit 1; }; } && \
	  echo "$(CURDIR)" > $@; fi

$(RUN): $(MADE) pyproject.toml
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(DEV): $(RUN) pyproject.toml
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@
