# One command each. Every target first sets up what it needs (see setup.sh); the second time that takes no time.
#   make demo            train a network on emulated devices and compare
#   make test            all tests
#   make check           format, lint, types, import rules
#   make cover           which lines and branches the tests reach, TESTS= of them
#   make soak            simulated clusters with faults, SEEDS=N of them
#   make mutants         look for the seed that shows each hole in the protocol
#   make marathon        a quarter of an hour of four real devices over a broker, to which much is done; MINUTES= of it
#   make cuts            twenty power cuts on three real devices over a broker, and what each has cost
#   make runs            fifty runs that follow each other on four real devices, one of them away each time; data grow
#   make bench           all policies on many clusters and tasks, in simulation: hours, and it goes on where it was stopped
#   make bench-quick     one cluster for each kind of bottleneck and one task: minutes
#   make bench-overhead  what the engine itself costs
#   make bench-eight     eight processes over Mosquitto
#   make bench-ddp       the same work with PyTorch's DistributedDataParallel
#   make bench-agreement how fast, and with how many messages, devices agree on a plan
#   make bench-scale     what many devices cost
#   make bench-checkpoints  what saving costs, in time and in what is written
#   make picture         draw docs/demo.svg anew from a demonstration; needs the machine for itself
#   make peers           Flower in an environment of its own, for examples/benchmarks/peers
# PYTHON= names another interpreter (3.11 or later), with an environment of its own beside .venv: .venv-python3.13;
# VENV= names that directory, TORCH= another build of torch.

PYTHON ?= python3
VENV ?= .venv$(addprefix -,$(filter-out python3,$(notdir $(PYTHON))))
SEEDS ?= 1000
MINUTES ?= 15
TORCH ?= torch==2.13.0
TESTS ?= tests
QUICK = smart-home slow-radio flaky-garage all-pis
export PYTHON TORCH VENV

.PHONY: demo test check cover soak mutants marathon cuts runs bench bench-quick bench-overhead bench-eight bench-ddp bench-agreement bench-scale bench-checkpoints picture peers
.NOTPARALLEL:

demo: $(VENV)/ready
	@./setup.sh packages || true
	$(VENV)/bin/crowd demo

test: $(VENV)/ready
	@./setup.sh packages
	$(VENV)/bin/pytest -m "not alone" --numprocesses logical --dist worksteal
	$(VENV)/bin/pytest -m alone

check: $(VENV)/ready
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# no test is alone in some folders, which pytest answers with 5
cover: $(VENV)/ready
	@./setup.sh packages
	$(VENV)/bin/pytest $(TESTS) -m "not alone" --numprocesses logical --dist worksteal --cov --cov-report=
	$(VENV)/bin/pytest $(TESTS) -m alone --cov --cov-append || [ $$? = 5 ]

soak: $(VENV)/ready
	$(VENV)/bin/python -m tests.simulation.soak --seeds $(SEEDS)

mutants: $(VENV)/ready
	$(VENV)/bin/python -m tests.simulation.mutants

marathon: $(VENV)/ready
	@./setup.sh packages
	$(VENV)/bin/python -m tests.marathon --minutes $(MINUTES)

cuts: $(VENV)/ready
	@./setup.sh packages
	$(VENV)/bin/python -m tests.marathon.cuts

runs: $(VENV)/ready
	@./setup.sh packages
	$(VENV)/bin/python -m tests.marathon.runs

bench: $(VENV)/ready
	@./setup.sh packages
	@mkdir -p build
	@test ! -e docs/runs.tar.xz || $(VENV)/bin/python examples/maintenance/published_runs.py unpack
	$(VENV)/bin/crowd bench --json build/bench.json --html build/bench.html
	@echo "the page is build/bench.html; examples/maintenance/write_table.py build/bench.json writes the tables into the"
	@echo "README and docs/comparison.md, examples/maintenance/published_runs.py pack build/bench.json keeps the runs"

# processors, links, failures, and nothing at all
bench-quick: $(VENV)/ready
	@mkdir -p build
	$(VENV)/bin/crowd bench --clusters $(QUICK:%=examples/clusters/%.toml) --tasks digits --seeds 1 \
		--json build/bench-quick.json --html build/bench-quick.html
	@echo "the page is build/bench-quick.html"

bench-overhead: $(VENV)/ready
	@./setup.sh packages || true
	$(VENV)/bin/python examples/benchmarks/bench_overhead.py

bench-eight: $(VENV)/ready
	@./setup.sh packages || true
	$(VENV)/bin/python examples/benchmarks/bench_eight_nodes.py

bench-ddp: $(VENV)/ready
	$(VENV)/bin/python examples/benchmarks/bench_ddp.py

bench-agreement: $(VENV)/ready
	$(VENV)/bin/python examples/benchmarks/bench_agreement.py

bench-scale: $(VENV)/ready
	$(VENV)/bin/python examples/benchmarks/bench_scale.py

bench-checkpoints: $(VENV)/ready
	@./setup.sh packages
	$(VENV)/bin/python examples/benchmarks/bench_checkpoints.py

picture: $(VENV)/ready
	$(VENV)/bin/python examples/maintenance/make_demo_picture.py docs/demo.svg

peers: .venv-peers/ready $(VENV)/ready
	@./setup.sh packages || true

.venv-peers/ready: pyproject.toml setup.sh examples/benchmarks/peers/requirements.txt
	@./setup.sh peers
	@touch $@

$(VENV)/ready: pyproject.toml setup.sh
	@./setup.sh python
	@touch $@
