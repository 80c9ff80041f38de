# One command each. Every target first sets up what it needs (see setup.sh); the second time that takes no time.
#   make demo            train a network on emulated devices and compare
#   make test            all tests
#   make check           format, lint, types, import rules
#   make soak            simulated clusters with faults, SEEDS=N of them
#   make mutants         look for the seed that shows each hole in the protocol
#   make bench-overhead  what the engine itself costs
#   make bench-eight     eight processes over Mosquitto
#   make bench-ddp       the same work with PyTorch's DistributedDataParallel
#   make bench-agreement how fast, and with how many messages, devices agree on a plan
#   make bench-scale     what many devices cost
#   make peers           Flower in an environment of its own, for examples/peers
# PYTHON= names another interpreter (3.11 or later), TORCH= another build of torch.

PYTHON ?= python3
SEEDS ?= 1000
TORCH ?= torch==2.13.0
export PYTHON TORCH

.PHONY: demo test check soak mutants bench-overhead bench-eight bench-ddp bench-agreement bench-scale peers
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

soak: .venv/ready
	.venv/bin/python -m tests.simulation.soak --seeds $(SEEDS)

mutants: .venv/ready
	.venv/bin/python -m tests.simulation.mutants

bench-overhead: .venv/ready
	@./setup.sh packages || true
	.venv/bin/python examples/bench_overhead.py

bench-eight: .venv/ready
	@./setup.sh packages || true
	.venv/bin/python examples/bench_eight_nodes.py

bench-ddp: .venv/ready
	.venv/bin/python examples/bench_ddp.py

bench-agreement: .venv/ready
	.venv/bin/python examples/bench_agreement.py

bench-scale: .venv/ready
	.venv/bin/python examples/bench_scale.py

peers: .venv-peers/ready .venv/ready
	@./setup.sh packages || true

.venv-peers/ready: pyproject.toml setup.sh examples/peers/requirements.txt
	@./setup.sh peers
	@touch $@

.venv/ready: pyproject.toml setup.sh
	@./setup.sh python
	@touch $@
