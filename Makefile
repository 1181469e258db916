# `make` lists the targets. Those that need tools install them first: Debian packages where they are missing, and the
# pinned requirements-dev.txt into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
# Messages of tools are compared and read: no translations.
export LC_ALL := C.UTF-8

SCENARIOS ?= $(notdir $(patsubst %/,%,$(dir $(wildcard molecule/*/molecule.yml))))
PYTEST := pytest -p no:cacheprovider
PLAYBOOK := ansible-playbook -i inventories/lab
SHELL_SCRIPTS = $(shell git ls-files -co --exclude-standard '*.sh' .ci/run)
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' executor/datapath/__init__.py)
ARTEFACT := roles/executor/files/datapath-$(VERSION).pyz
ARTEFACT_SOURCES = $(shell find executor/datapath -name '*.py' -not -path '*/generate/*') executor/requirements.txt tools/build_artefact.py

include bpf/build.mk

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(CURDIR)/Makefile

.PHONY: setup
setup: ## install what is missing: Debian packages, .venv
	@tools/setup-apt.sh
	@tools/setup-venv.sh

$(BPF_OBJECTS): | setup
bpf: ## build the datapath's programs (bpf/build.mk)

.PHONY: artefact
artefact: $(ARTEFACT) ## build the executor's artefact, what nodes get

$(ARTEFACT): $(BPF_OBJECTS) $(ARTEFACT_SOURCES) | setup
	python3 tools/build_artefact.py --output $(@D)

.PHONY: lint
lint: setup ## run every linter, and check that generated files are current
	ruff check .
	ruff format --check .
	mypy
	mypy --strict tools
	PYTHONPATH=executor python3 -m datapath.generate --check
	yamllint --strict .
	shellcheck $(SHELL_SCRIPTS)
	ansible-lint --offline --profile production

.PHONY: sanity
sanity: setup ## run ansible-test sanity over the collection
	tests/sanity/run.sh

.PHONY: test-unit test-bpf test-fuzz test-bench test-netns test-kernels test-tracing test-bandwidth test-integration test-lab test-readme
test-unit: setup ## test each stage of the executor by itself
	@tools/setup-apt.sh nftables
	$(PYTEST) tests/unit

test-bpf: setup bpf ## test programs packet by packet in the kernel
	$(PYTEST) tests/bpf

test-fuzz: setup bpf ## push random and mutated frames through the load balancer (FUZZ_SEED, FUZZ_PACKETS)
	$(PYTEST) -s tests/fuzz

test-bench: setup bpf ## try the benchmark out, and compare its figures that do not jitter with the committed ones
	@tools/setup-apt.sh nftables
	$(PYTEST) -s tests/bench

test-netns: setup bpf ## test the datapath on topologies of network namespaces
	$(PYTEST) tests/netns

test-kernels: setup bpf ## test the programs and the kernel stage on Debian's kernels in QEMU
	@tools/setup-apt.sh busybox-static kmod qemu-system-x86
	PYTHONPATH=executor python3 -m tools.kernels

test-tracing: setup bpf ## test what bcc compiles on nodes, and VLANs, in QEMU with Debian's kernel and its headers
	@tools/setup-apt.sh busybox-static kmod qemu-system-x86 python3-bpfcc
	PYTHONPATH=executor python3 -m tools.kernels.tracing

test-bandwidth: setup bpf ## test rates of endpoints and latency by iperf3, on Debian's kernels in QEMU
	@tools/setup-apt.sh busybox-static iperf3 kmod qemu-system-x86
	PYTHONPATH=executor python3 -m tools.kernels.bandwidth

test-integration: setup artefact ## test daemon, command and collection together
	@tools/setup-apt.sh etcd-client etcd-server
	$(PYTEST) tests/integration

test-lab: setup ## test that the lab comes up, changes nothing twice, and leaves nothing
	$(PYTEST) tests/lab

test-readme: setup ## run the README's commands as they are written
	python3 tests/readme/run_readme.py

.PHONY: bench bench-mesh
bench: setup bpf ## measure program and executor beside yardsticks (build/bench); more: BENCH=--help
	@tools/setup-apt.sh nftables
	PYTHONPATH=executor:tests python3 -m bench $(BENCH)

bench-mesh: setup bpf ## measure how soon a node has what another cluster publishes, among 5,000 services; more: BENCH=--help
	@tools/setup-apt.sh etcd-client etcd-server
	PYTHONPATH=executor:tests python3 -m bench.mesh $(BENCH)

.PHONY: molecule
molecule: setup artefact ## run the scenarios of molecule/ on the lab's nodes (SCENARIOS), each even where one failed
	@tools/setup-apt.sh etcd-client etcd-server
	@export MOLECULE_COMMAND_BORDERS=false NO_COLOR=1 COLUMNS=160; status=0; \
	for scenario in $(SCENARIOS); do \
		molecule test -s $$scenario || status=1; \
	done; exit $$status

.PHONY: test
test: setup lab-clean ## run all tests, or those of STAGES="lint molecule" (logs: build/logs)
	@python3 tools/run_tests.py $(STAGES)

.PHONY: demo demo-clean
demo: setup artefact ## turn machines into a load balancer and show it at work
	@python3 tools/demo.py

demo-clean: lab-clean ## remove what the demo made

.PHONY: lab lab-clean
lab: setup ## make the lab's nodes exist and run
	$(PLAYBOOK) playbooks/lab.yml

lab-clean: setup ## remove the lab's nodes; image and keys stay for the next time
	@$(PLAYBOOK) playbooks/lab.yml -e lab_state=absent

.PHONY: clean
clean: lab-clean ## remove everything that was built
	rm -rf build .venv $(wildcard roles/executor/files/datapath-*.pyz*)
