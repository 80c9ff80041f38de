# One command each. Every target first sets up what it needs (see setup.sh); the second time that takes no time.
#   make demo            train a network on emulated devices and compare
#   make test            all tests
#   make check           format, lint, types, import rules
#   make bench-overhead  what the engine itself costs
#   make bench-eight     eight processes over Mosquitto
#   make bench-ddp       the same work with PyTorch's DistributedDataParallel
# PYTHON= names another interpreter (3.11 or later), TORCH= another build of torch.

PYTHON ?= python3
TORCH ?= torch==2.13.0
export PYTHON TORCH

.PHONY: demo test check bench-overhead bench-eight bench-ddp
.NOTPARALLEL:

demo: .venv/ready
	@./setup.sh packages || true
	.venv/bin/crowd demo

test: .venv/ready
	@./setup.sh packages
	.venv/bin/pytest

check: .venv/ready
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports

bench-overhead: .venv/ready
	@./setup.sh packages || true
	.venv/bin/python examples/bench_overhead.py

bench-eight: .venv/ready
	@./setup.sh packages || true
	.venv/bin/python examples/bench_eight_nodes.py

bench-ddp: .venv/ready
	.venv/bin/python examples/bench_ddp.py

.venv/ready: pyproject.toml setup.sh
	@./setup.sh python
	@touch $@
