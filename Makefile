# make demo    the main job on real data, base install only (no torch)     make check   format, lint, types
# make test    everything installed, all fast tests                         make bench   the measured promises
# make slow    the tests that take longer                                   make lock    renew requirements.lock
PYTHON ?= python3
DEMO := .venv-demo
DEV := .venv
STAMP = .stamp-installed
comma := ,

# One rule installs for both environments: uv where it comes up, plain pip otherwise; a stamp per venv.
define install
	$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install -q --disable-pip-version-check uv \
	  && $(1)/bin/uv pip install -q --compile-bytecode --python $(1)/bin/python -c requirements.lock -e '.$(2)' \
	  || $(1)/bin/python -m pip install -q --disable-pip-version-check -c requirements.lock -e '.$(2)'
	@touch $(1)/$(STAMP)
endef

.PHONY: demo test slow check bench lock clean

demo: $(DEMO)/$(STAMP)
	$(DEMO)/bin/python recipes/digits.py demo

test: $(DEV)/$(STAMP)
	HF_HUB_OFFLINE=1 $(DEV)/bin/python -m pytest -n 2 -m "not slow"

slow: $(DEV)/$(STAMP)
	HF_HUB_OFFLINE=1 $(DEV)/bin/python -m pytest -n 2 -m slow

check: $(DEV)/$(STAMP)
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/pyright --pythonpath $(DEV)/bin/python

bench: $(DEV)/$(STAMP)
	@for script in benchmarks/[!_]*.py; do echo "== $$script"; $(DEV)/bin/python $$script || exit 1; done

lock: $(DEV)/$(STAMP)
	$(DEV)/bin/uv pip compile -q --universal pyproject.toml --extra train --extra dev \
	  --no-header --no-emit-index-url --no-annotate -o requirements.lock

clean:
	rm -rf $(DEMO) $(DEV) demo

$(DEMO)/$(STAMP): pyproject.toml requirements.lock
	$(call install,$(DEMO),)

$(DEV)/$(STAMP): pyproject.toml requirements.lock
	$(call install,$(DEV),[train$(comma)dev])
