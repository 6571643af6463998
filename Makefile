# Everything is in .venv and .ashi under this folder, and in your user's caches. `make help` lists the targets.

# The first Python that is new enough; `make setup PYTHON=/path/to/python3.12` names another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && exit; done; echo python3)
STAMP := .venv/.set-up
# Tests wait as much as they compute, so five keep two cores busy; each has a broker of its own (half a gigabyte).
WORKERS ?= 5
# Of what the image holds: every stage and every store.
IMAGE_EXTRAS := ingest aggregate sqlite postgres lake series strategies chart

.PHONY: help setup demo up test test-fast test-outside chaos soak rehearsal feeds-soak drills fuzz advisories screenshots image manifests \
	manifests-dry-run fix lint contracts-page docs bench bench-peers bench-scale wheels release lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 14

setup: $(STAMP)  ## make .venv with Ashi and all it needs, as locked

$(STAMP): requirements.lock pyproject.toml $(wildcard aggregate/ashi_aggregate/native/*.zig)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Ashi needs Python 3.11 or newer, and $(PYTHON) is not: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## real recordings through the whole flow on this machine; KEEP=1 stays with the chart, LIVE=1 reads the exchanges
	@.venv/bin/ashi demo $(if $(LIVE),--live) $(if $(KEEP),--keep)

up: $(STAMP)  ## live markets and the chart until Ctrl-C, and on from there the next time; MARKETS="binance:BTCUSDT", SIMULATE=1
	@.venv/bin/ashi up $(if $(SIMULATE),--simulate) $(MARKETS)

test: $(STAMP)  ## all tests but test-outside, WORKERS=5 at a time, each with a broker; ARGS="tests/sinks -k lake" chooses
	.venv/bin/pytest --numprocesses $(WORKERS) -m "not outside" $(ARGS)

test-fast: $(STAMP)  ## the tests that start no server and no process and take no seconds; ARGS as for test
	.venv/bin/pytest --numprocesses $(WORKERS) \
		-m "not kafka and not postgres and not processes and not slow and not outside" $(ARGS)

test-outside: $(STAMP)  ## the tests that fetch something from outside of this folder and its .venv; ARGS as for test
	.venv/bin/pytest -m outside $(ARGS)

chaos: $(STAMP)  ## candles while everything fails, for MINUTES=15, SYMBOLS=24; SEED=7 repeats a run
	PYTHONPATH=tests .venv/bin/python -m chaos --minutes $(or $(MINUTES),15) $(if $(SEED),--seed $(SEED)) \
		$(if $(SYMBOLS),--symbols $(SYMBOLS))

soak: $(STAMP)  ## everything for MINUTES=60, a fault every five minutes, and who is told; FAULTS="venue SQLite" chooses, TIMES=5 of each, SEED=7
	PYTHONPATH=tests .venv/bin/python -m soak --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED)) \
		$(if $(TIMES),--times $(TIMES)) $(foreach fault,$(FAULTS),--fault $(fault))

rehearsal: $(STAMP)  ## three brokers, each worker a host of its own; FAULTS="link-cut rolled" chooses, SEED=7 repeats
	PYTHONPATH=tests .venv/bin/python -m multihost --minutes $(or $(MINUTES),40) --rate $(or $(RATE),2000) \
		$(if $(SEED),--seed $(SEED)) $(if $(CALM),--calm $(CALM)) $(if $(STATIC),--static) $(FAULTS)

feeds-soak: $(STAMP)  ## live feeds while parts of the venues fail, for MINUTES=30, MARKETS=60; SEED=7 repeats a run
	PYTHONPATH=tests:tests/ingest .venv/bin/python -m feeds_soak --minutes $(or $(MINUTES),30) \
		--markets $(or $(MARKETS),60) $(if $(SEED),--seed $(SEED))

drills: $(STAMP)  ## break everything once, and see who is told by Prometheus and Alertmanager; ALERTS="StoreDown" chooses
	PYTHONPATH=tests .venv/bin/python -m drills $(ALERTS)

fuzz: $(STAMP)  ## every parser of foreign bytes, guided by coverage, each for MINUTES=1; TARGETS="trades chart" chooses
	PYTHONPATH=tests .venv/bin/python tests/fuzz/__main__.py --minutes $(or $(MINUTES),1) $(TARGETS)

advisories: $(STAMP)  ## known weaknesses of what the image holds, asked of the package index; fails where that does not answer
	.venv/bin/uv tool run --from 'pip-audit>=2.9,<3' pip-audit --strict --progress-spinner off --disable-pip \
		--require-hashes --requirement deploy/requirements.lock

screenshots: $(STAMP)  ## the pictures of the chart in README, of `ashi up --simulate`; needs chromium
	PYTHONPATH=tests:tests/chart/browser .venv/bin/python -m screenshots

image: $(STAMP)  ## build the image TAG=ashi:latest by docker, podman or buildah; BASE= another image with Python
	.venv/bin/python deploy/image.py $(if $(TAG),--tag $(TAG)) $(if $(BASE),--base $(BASE)) $(if $(BUILDER),--builder $(BUILDER))

manifests: $(STAMP)  ## write what is generated of deploy/kubernetes, and the tables of docs/access.md
	.venv/bin/python deploy/kubernetes/make_manifests.py

manifests-dry-run: $(STAMP)  ## every manifest to a real kube-apiserver, which says if it would take it; needs Go, builds it once
	PYTHONPATH=tests:tests/deploy .venv/bin/python -m dry_run

contracts-page: $(STAMP)  ## dist/contracts.html, the AsyncAPI document as a page that needs no network; needs npm, and asks it
	PYTHONPATH=tests/contracts .venv/bin/python -m asyncapi_tools dist/contracts.html

docs: $(STAMP)  ## dist/site, these pages in a browser, with a search: dist/site/index.html, no network needed
	.venv/bin/python docs/make_site.py

fix: $(STAMP)  ## mend what ruff can mend: style, order of imports, layout
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

lint: $(STAMP)  ## style, types and the rules of who may import whom
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/mypy --config-file tests/mypy.ini
	.venv/bin/lint-imports

bench: $(STAMP)  ## rates, delays and CPU of each stage and store, hand-overs, state and many symbols; the plain Faust way too
	.venv/bin/python benchmarks/throughput.py
	.venv/bin/python benchmarks/shapes.py
	.venv/bin/python benchmarks/state.py
	.venv/bin/python benchmarks/rows.py --seconds 10
	.venv/bin/python benchmarks/closing.py
	.venv/bin/python benchmarks/stores.py
	.venv/bin/python benchmarks/rebuild.py
	.venv/bin/python benchmarks/minute_end.py
	.venv/bin/python benchmarks/ingest.py
	.venv/bin/python benchmarks/ingest_steps.py
	.venv/bin/python benchmarks/compression.py
	.venv/bin/python benchmarks/handover.py
	.venv/bin/python benchmarks/live.py
	.venv/bin/python benchmarks/chart.py --seconds 15
	.venv/bin/python benchmarks/backtest.py
	.venv/bin/python benchmarks/scale.py --quick
	.venv/bin/python benchmarks/side_by_side.py --quick

bench-peers: $(STAMP)  ## Ashi, Flink, Kafka Streams and others on one topic, three rounds of 10,000,000 trades; ENGINES=ashi,flink chooses
	.venv/bin/python benchmarks/side_by_side.py $(if $(ENGINES),--engines "$(ENGINES)")

bench-scale: $(STAMP)  ## 10 to 10,000 symbols, a quarter of an hour; AGAINST=COMMIT measures another version beside it
	.venv/bin/python benchmarks/scale.py $(if $(AGAINST),--against $(AGAINST)) --plot docs/scale.svg

wheels: $(STAMP)  ## dist/: a wheel for each kind of machine that the native fold is built for, and one without it
	for target in linux-x86_64 linux-aarch64 macos-x86_64 macos-arm64; do \
		ASHI_BUILD_TARGET=$$target .venv/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . || exit; done
	ASHI_BUILD_NATIVE=off .venv/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

release: $(STAMP)  ## dist/: sdist and wheels of the commit, built twice and equal, and the demo in a clean environment of each Python
	.venv/bin/python deploy/release.py

lock: $(STAMP)  ## resolve the dependencies anew
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--all-extras --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		pyproject.toml --output-file requirements.lock
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --constraint requirements.lock \
		$(foreach extra,$(IMAGE_EXTRAS),--extra $(extra)) --no-annotate --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" pyproject.toml --output-file deploy/requirements.lock
	printf "hatchling\nziglang\n" | .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--constraint requirements.lock --no-annotate --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" - --output-file deploy/build.lock

clean:  ## remove what the other targets made here, all but what `up` keeps (a running `ashi broker` must be stopped first)
	[ ! -d .ashi ] || find .ashi -mindepth 1 -maxdepth 1 ! -name up -exec rm -rf {} +
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
