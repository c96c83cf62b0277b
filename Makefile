# The front door. `make help` lists the targets; each is one line of intent.
.DEFAULT_GOAL := help
.PHONY: help demo run console install test bench-frontend bench-peers bench-operator build lint fuzz generate cluster cluster-down images gpu-bundle

PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),target)/debug

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Cluster, operator, a model, a streamed answer, and the next commands
	@$(PYTHON) e2e/demo.py

run: ## Serve the demo's YAML on this machine, without a cluster (PORT=8000)
	@$(PYTHON) e2e/run.py

console: ## Open the console on this machine, with the rights of your kubeconfig (PORT=8090)
	@$(PYTHON) e2e/console.py

install: ## Install kubectl-slipway and slipway-runtime with completions and manual (PREFIX=/usr/local; PROFILE=dev is quicker)
	@$(PYTHON) e2e/install.py

test: ## Everything CI runs
	@$(PYTHON) e2e/suite.py

bench-frontend: ## Responses per second without a model, beside FastAPI and uvicorn
	@$(PYTHON) e2e/bench/frontend.py

bench-peers: ## Prefill, decode and streams beside llama.cpp and transformers, which are installed first (PROFILE=dev)
	@$(PYTHON) e2e/bench/peers.py

bench-operator: ## Faults and many objects on the local cluster: seconds until named and mended, requests, memory
	@$(PYTHON) e2e/bench/operator_bench.py

build: ## Build every binary
	@cargo build --locked --workspace --bins

lint: ## Formatting, clippy with warnings denied, licences and sources of dependencies
	@cargo fmt --check
	@cargo clippy --locked --workspace --all-targets -- -D warnings
	@$(PYTHON) e2e/deny.py

fuzz: ## Fuzz every reader of a stranger's bytes (FUZZ_SECONDS=60 each)
	@$(PYTHON) fuzz/fuzz.py

generate: ## Renew every generated file (CRD, references of settings and API, OpenAPI document, RunPod's form, krew manifest)
	@cargo build --locked --workspace --bin crds --bin slipway-runtime --bin kubectl-slipway
	@$(TARGET)/crds .
	@$(TARGET)/kubectl-slipway krew > cli/krew.yaml
	@$(TARGET)/slipway-runtime openapi > docs/openapi.json
	@$(TARGET)/slipway-runtime parameters > docs/api.md

cluster: ## Start a local Kubernetes: kind where Docker runs, else built from Go modules
	@$(PYTHON) e2e/cluster/cluster.py up

cluster-down: ## Stop the local Kubernetes and remove all of it but the built programs
	@$(PYTHON) e2e/cluster/cluster.py down

images: ## Build the release binaries and their images (REGISTRY=registry.example.com/team, BASE=your base image)
	@cargo build --locked --workspace --bins $(if $(filter dev,$(PROFILE)),,--release)
	@$(PYTHON) e2e/images.py

gpu-bundle: ## Pack what a machine with a card needs to test and measure Slipway (then `run.py list` there)
	@$(PYTHON) e2e/gpu/bundle.py
