# Every target is listed by `make help`. Making labs needs Linux and root; `make deps` installs what else is missing.

# The bundle is built with the same settings, so that it, the command and the tests share one build cache.
export GOFLAGS := -trimpath -buildvcs=false
export CGO_ENABLED := 0

# `make soak` writes its tables into a document: a change of that does not change the version.
VERSION := $(shell git describe --tags --always 2>/dev/null || echo devel)$(shell git diff --quiet HEAD -- . ':!docs/reliability.md' 2>/dev/null; test $$? -ne 1 || echo -dirty)
EASTWEST := bin/eastwest
STORIES := cross-cluster-call mismatched-root-ca late-cacerts
# What `make kind` runs after the conformance suite.
ON_KIND := $(if $(EASTWEST_NIGHTLY),$(STORIES) primary-lost,cross-cluster-call)
# Tests are not vetted again, `make verify` does that, and linked without what a debugger reads.
GOTEST := go test -vet=off -ldflags '-s -w'
# Packages whose tests run at once: each has labs of its own, one or two of some 3 GiB, and with more of them than CPUs calls are
# lost for want of time.
PACKAGES := $(shell awk -v cpus="$$(nproc)" '/^MemAvailable/ { g = $$2 / 1024 / 1024; n = (g > 18) ? 3 : (g > 12) ? 2 : 1; print (n > cpus) ? cpus : n }' /proc/meminfo 2>/dev/null || echo 1)
# The longest begin first, and before them the one that waits most of its time.
LONGEST := ./tests/kind ./tests/topologies ./tests/existing ./tests/verbs ./tests/engine ./tests/chaos ./tests/docs
LINT := go tool -modfile=scripts/tools/go.mod golangci-lint

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help deps build bundle both run test nightly soak kind unit integration scenarios mutations doctor conformance topologies verify lint generate bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install the host packages that are missing (Debian, Ubuntu; as root)
	@scripts/deps.sh

# Without its tracing pages grpc lets the linker drop 29 of 80 MB.
build: ## build bin/eastwest
	go build -tags grpcnotrace -ldflags '-s -w -X main.version=$(VERSION)' -o $(EASTWEST) ./lab/cmd/eastwest

bundle: build ## build everything that labs are made of: 10 to 16 min on 2 cores, once
	$(EASTWEST) bundle build

both: bundle
	$(EASTWEST) bundle build --with istio-previous

run: deps bundle ## make a lab, run the three stories on it, take it down (KEEP=1 leaves it)
	$(EASTWEST) up
	$(EASTWEST) run --verbose $(STORIES) || { code=$$?; test -n "$(KEEP)" || $(EASTWEST) down; exit $$code; }
	test -n "$(KEEP)" || $(EASTWEST) down

# Scenarios are alone, in as many lanes as fit: they count lost calls.
test: deps both ## run the tests of each change, with real clusters
	@scripts/deps.sh --with browser || echo "no Chromium: tests/browser is skipped"
	go build ./...
	@status=0; set -x; \
	$(GOTEST) -timeout $(if $(EASTWEST_NIGHTLY),150m ./scenarios,60m ./scenarios -args --labels tests=change) || status=1; \
	if docker version >/dev/null 2>&1; then $(MAKE) kind || status=1; else : no Docker answers, so nothing runs on kind: scripts/docker-up starts one; fi; \
	$(GOTEST) -p $(PACKAGES) -timeout $(if $(EASTWEST_NIGHTLY),150m,45m) $(LONGEST) $$(go list ./... | grep -v /scenarios$$) || status=1; \
	exit $$status

nightly: deps bundle ## run every test, also those that are too long for each change
	@status=0; \
	EASTWEST_NIGHTLY=1 $(MAKE) test || status=1; \
	$(MAKE) mutations || status=1; \
	exit $$status

# FOR bounds the time in which scenarios begin. Called again, it goes on where it was stopped, on one commit. The tests build the command
# anew, without its version.
SOAK := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/eastwest/soak/embedded-$(VERSION).jsonl
soak: deps bundle ## run the catalogue 20 times in random order, kill 200 things, and write docs/reliability.md (FOR=2h)
	@status=0; set -x; \
	$(EASTWEST) bench soak --file $(SOAK) --runs 600 --for $(or $(FOR),2h) || status=1; \
	EASTWEST_SOAK=$(SOAK) $(GOTEST) -count=1 -timeout 4h ./tests/chaos || status=1; \
	$(MAKE) build && $(EASTWEST) bench soak --file $(SOAK) --runs 0 --write docs/reliability.md || status=1; \
	exit $$status

kind: build ## run the conformance suite and a scenario on kind clusters; needs a Docker that answers
	@scripts/deps.sh --with kind
	$(EASTWEST) bundle build --with kind
	@status=0; set -x; export EASTWEST_PROVIDER=kind; \
	$(GOTEST) -timeout 30m ./tests/provider || status=1; \
	$(GOTEST) -timeout 30m ./scenarios -run 'TestScenarios/^($(subst $(eval ) ,|,$(ON_KIND)))$$' || status=1; \
	exit $$status

unit: ## run the tests that need no cluster
	go test -short ./...

integration: bundle ## run the tests of lab and tests, with real clusters
	$(GOTEST) -p $(PACKAGES) -timeout 30m $(LONGEST) ./lab/... ./tests/...

scenarios: both ## run every scenario of the catalogue (one: make scenarios RUN=late-cacerts)
	EASTWEST_NIGHTLY=1 go test -v -timeout 150m ./scenarios/... $(if $(RUN),-run '/$(RUN)$$')

mutations: both ## run every scenario without its recovery: each has to fail, in its health checks
	EASTWEST_NIGHTLY=1 EASTWEST_MUTATIONS=1 go test -v -timeout 150m ./scenarios -run TestMutations

doctor: bundle ## break a lab by every scenario and write down what `eastwest doctor` finds
	EASTWEST_DOCTOR_RUNS=1 go test -v -timeout 60m ./tests/doctor -args -update
	go generate ./scenarios

conformance: bundle ## run a selection of Kubernetes' own conformance tests and write down their results (EASTWEST_PROVIDER=embedded)
	@scripts/deps.sh conformance
	EASTWEST_CONFORMANCE=1 go test -v -timeout 90m ./tests/provider -run 'TestKubernetesConformance$$' -args -update

topologies: bundle ## bring up every topology with each network and each kind of trust; `make test` takes five of them
	EASTWEST_NIGHTLY=1 go test -v -timeout 60m ./tests/topologies -run 'TestTopologies$$'

verify: ## check format, vet, modules and generated files
	@unformatted=$$(gofmt -l lab manifests scenarios scripts tests); test -z "$$unformatted" || { echo "not formatted: $$unformatted (gofmt -w fixes it)"; exit 1; }
	go vet ./...
	go mod verify
	go test ./tests/arch ./scripts/components

lint: ## run golangci-lint; its first build takes minutes
	$(LINT) run ./...

generate: ## write generated files anew: component pins, scenario schema
	go generate ./...

bench: bundle ## measure `eastwest up`, median of five
	$(EASTWEST) bench up --runs 5

clean: ## take every lab down and delete bin; the bundle stays
	test ! -x $(EASTWEST) || $(EASTWEST) down --all
	rm -rf bin
