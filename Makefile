# The front door. `make help` lists the targets; each is one line of intent.
.DEFAULT_GOAL := help
.PHONY: help cluster cluster-down images

PYTHON ?= python3

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

cluster: ## Start a local Kubernetes: kind where Docker runs, else built from Go modules
	@$(PYTHON) e2e/cluster/cluster.py up

cluster-down: ## Stop the local Kubernetes and remove all of it but the built programs
	@$(PYTHON) e2e/cluster/cluster.py down

images: ## Build the container images from the workspace's binaries
	@$(PYTHON) e2e/images.py
