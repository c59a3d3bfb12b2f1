# Everything a newcomer needs; `make help` lists it. Needs Node >= 18, npm and make; the rest is installed on the way.
SHELL := /bin/bash
ARCH := $(shell uname -m | sed 's/x86_64/x64/;s/aarch64/arm64/')
NODE := node_modules/node-linux-$(ARCH)/bin/node
STAMP := node_modules/.rubato-setup

.DEFAULT_GOAL := help
.PHONY: help setup libatomic check test test-unit test-real test-simulation demo build bench clean format

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install dependencies, Node 26 among them, into node_modules

$(STAMP): package.json package-lock.json
	@echo "installing dependencies into node_modules …"
	@# Exactly the lock file, which stays as it is. No package of ours needs its install script, and scripts would run under a Node
	@# that may not start yet. (`npm ci` of npm 11 refuses where a registry lacks other platforms' optional packages.)
	@npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	@test -x $(NODE) || { echo "No Node 26 for this machine ($(ARCH)) came with npm: is 'omit=optional' set? Unset it and run 'make setup' again."; exit 1; }
	@$(NODE) --version >/dev/null 2>&1 || $(MAKE) --no-print-directory libatomic
	@$(NODE) installer/run/native-parts.mjs
	@touch $(STAMP)

# Node 26 needs libatomic, which small Debian and Ubuntu images lack.
libatomic:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing libatomic1, which Node 26 needs …"; \
	  (apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install libatomic1) >/dev/null || \
	    { echo "libatomic1 cannot be installed with apt-get."; exit 1; }; \
	fi
	@$(NODE) --version >/dev/null 2>&1 || { $(NODE) --version; \
	  echo "Node 26 ($(NODE)) does not start. If libatomic.so.1 is missing: apt-get install libatomic1 (Fedora: dnf install libatomic)."; exit 1; }

check: setup ## types, lint (imports, purity of plans), formatting
	@$(NODE) node_modules/typescript/bin/tsc -p .
	@$(NODE) node_modules/@biomejs/biome/bin/biome check --error-on-warnings .

format: setup ## format and apply safe lint fixes
	@$(NODE) node_modules/@biomejs/biome/bin/biome check --write .

test: setup ## every test; as root on Debian/Ubuntu it installs the real components (Docker, Consul, …) that tests use
	@$(NODE) test/run.ts

test-unit: setup ## fast tests only
	@$(NODE) test/run.ts unit

test-real: setup ## tests against real components only
	@$(NODE) test/run.ts real

test-simulation: setup ## random faults under virtual time on all cores (SEEDS=3000 FIRST_SEED=1, ONLY=seeds), closes with a JSON line
	@$(NODE) test/simulation/main.ts

demo: setup ## the main job in a few minutes: load rises, machines are bought; it falls, they are given back (ENGINE=process, KEEP=1)
	@$(NODE) test/demo/main.ts

build: setup ## dist/rubato and dist/rubato-agent as single executables (linux x64 and arm64)
	@$(NODE) installer/build-binaries.ts

bench: setup ## measure everything we claim (ONLY=area); writes bench-report.json
	@$(NODE) test/bench/main.ts

clean: ## remove what was built; keeps node_modules
	@rm -rf dist .cache bench-report.json elasticity-report.md demo-report.json
