# Ringfence: what there is to build, run and check. `make help` lists it.
#
# Targets either check the tree or write to it, never both; those that write are fmt, generate, bundle, chart, golden and tidy. Programs that are built
# from other projects' modules live in a cache (XDG_CACHE_HOME, else ~/.cache), so that `make clean` does not cost minutes.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
FUZZTIME ?= 30s
# The minors of Kubernetes that are supported beside the one that hack/kube pins, at the newest patch release that the Go module proxy has.
MINORS   ?= 1.35.4 1.37.0
ONCE     ?=
# Of `make e2e`: what is installed and what removes it, directories of kustomize or files; the image of the application's pods.
INSTALL   ?= config/default
UNINSTALL ?= config/uninstall
FROM      ?=
AGNHOST   ?=
IMAGE    ?= ringfence:$(VERSION)
ARCHES   ?= $(shell go env GOARCH)
LDFLAGS  := -X github.com/ringfence-io/ringfence/internal/cli.version=$(VERSION)

comma := ,

# Packages with tests, by what these need; Go is asked for them once, and only by targets that use them. UNIT needs nothing but Go;
# PACKETS makes network namespaces, and rules in them; API and INSTALLED need the API server, and E2E the CNI plugins too. E2E is all the rest, so that a
# new package cannot be forgotten.
module   := github.com/ringfence-io/ringfence
packages  = $(eval packages := $(shell go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...))$(packages)
PACKETS   = $(filter $(module)/enforcer/dataplane $(module)/lab/host $(module)/lab/probe $(module)/lab/topology $(module)/test/packets% $(module)/test/adversary%,$(packages))
LADDER    = $(filter $(module)/test/ladder%,$(packages))
NPGUARD   = $(filter $(module)/test/npguard%,$(packages))
BENCH     = $(filter $(module)/test/bench%,$(packages))
UNIT      = $(filter-out $(PACKETS) $(LADDER) $(NPGUARD) $(BENCH) $(API) $(INSTALLED) $(module)/lab% $(module)/test/e2e%,$(packages))
API       = $(filter $(foreach p,controllers scale status watchcost,$(module)/test/$(p)%),$(packages))
INSTALLED = $(filter $(foreach p,crds olm rights,$(module)/test/$(p)%),$(packages))
E2E       = $(filter-out $(PACKETS) $(LADDER) $(NPGUARD) $(BENCH) $(UNIT) $(API) $(INSTALLED),$(packages))

GOTEST = go run ./hack/gotest
# KUBEBUILDER_ASSETS and CNI_PATH, as hack/kube/build.sh prints them. kube-apiserver, etcd and kubectl come from envtest's published archives where the
# internet is there. With CI=true they are built from source, so that CI tests the release that hack/kube pins and asks no index; KUBE_FROM=source does
# the same elsewhere.
ASSETS = eval "$$(hack/kube/build.sh)"

##@ Try it

.PHONY: run
run: deps build ## a cluster on this machine: who reaches whom before and after policy (ONCE=1: and end)
	@$(ASSETS); exec bin/ringfence lab run $(if $(filter-out 0,$(ONCE)),--once)

##@ Check

.PHONY: test
test: ## all tests, as root: everything below up to test-image, nothing skipped
	@hack/stages.sh deps-test kube lint vet verify test-unit test-kernel

.PHONY: test-unit
test-unit: ## pure packages, under the race detector
	@$(GOTEST) -race $(UNIT)

.PHONY: test-kernel
test-kernel: ## the next six, two at a time: tests of packets mostly wait
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target $(addprefix stage/,test-e2e test-packets test-api test-installed test-ladder test-image)

stage/%:
	+@hack/stages.sh $*

.PHONY: test-packets
test-packets: ## real packets through real rules, attacks among them: {legacy, nft} x {IPv4, IPv6} x {bridged, routed}
	@$(GOTEST) -count=1 -p 1 -timeout 30m $(PACKETS)

.PHONY: test-ladder
test-ladder: ## API texts = Node.Allows = traced ruleset = real packets, on random clusters; answers = another analyzer's fixtures
	@$(GOTEST) -count=1 -p 1 -timeout 30m $(LADDER) $(NPGUARD)

.PHONY: test-api
test-api: ## against a real API server: controllers, statuses, many objects
	@$(ASSETS); $(GOTEST) -count=1 -p 1 -timeout 40m $(API)

.PHONY: test-installed
test-installed: ## against a real API server: what an installation brings there, CRDs, rights, OLM
	@$(ASSETS); $(GOTEST) -count=1 -p 1 -timeout 40m $(INSTALLED)

.PHONY: test-e2e
test-e2e: ## the lab, and what happens in it: real packets, a real API server, enforcers that are killed
	@$(ASSETS); $(GOTEST) -count=1 -p 1 -timeout 40m $(E2E)

.PHONY: test-image
test-image: ## the container image: made of Debian's packages (apt), and run as the manifests say, in namespaces
	@[[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || apt-get install -qqy debian-archive-keyring >/dev/null
	@$(ASSETS); go -C hack/image test -count=1 -timeout 20m ./...

.PHONY: test-minors
test-minors: ## our kinds, rights and statuses against other releases of Kubernetes: those of MINORS, which it builds (slow)
	@for version in $(MINORS); do \
	  printf '==> Kubernetes %s\n' $$version; \
	  eval "$$(KUBE_VERSION=$$version hack/kube/build.sh)"; \
	  $(GOTEST) -count=1 -p 1 -timeout 40m ./test/crds ./test/rights ./test/status; \
	done

.PHONY: e2e
e2e: ## in the cluster of KUBECONFIG, without Ringfence so far: install, samples, status, audit, upgrade (FROM a file of an earlier release), uninstall
	@go test -tags cluster -count=1 -v -timeout 60m ./test/cluster -args \
	  -install $(INSTALL) -uninstall $(UNINSTALL) $(if $(FROM),-from $(FROM)) $(if $(AGNHOST),-agnhost $(AGNHOST))

.PHONY: race
race: ## all tests under the race detector, the ladder with a tenth of its clusters (slow)
	@$(ASSETS); $(GOTEST) -race -count=1 -p 1 -timeout 90m $(filter-out $(BENCH) $(LADDER),$(packages))
	@$(GOTEST) -race -count=1 -timeout 30m $(LADDER) -args -ladder.clusters=200

.PHONY: lint
lint: ## golangci-lint, which also holds the import table of docs/architecture.md; and the prose of the pages that people write
	@lint=$$(hack/tools/build.sh); "$$lint" run ./...
	@go run ./hack/prose $$(git ls-files README.md CONTRIBUTING.md 'docs/*.md' ':!docs/api.md' ':!docs/reference.md')

.PHONY: vet
vet: ## go vet, and that every package and test builds
	@go vet -tags cluster ./...

.PHONY: verify
verify: ## go.mod is tidy, generated files are up to date, manifests render, alerts fire when they should, documents name what exists
	@hack/verify.sh

.PHONY: outdated
outdated: ## modules of any go.mod with a newer release, but for those that are held with a reason (asks the module proxy)
	@hack/outdated.sh

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (30s)
	@hack/fuzz.sh $(FUZZTIME) ./...

.PHONY: bench
bench: ## the figures of docs/benchmarks.md, as root
	@$(ASSETS); go test -run '^$$' -bench . -benchmem -timeout 60m $(BENCH)

# What has a goal that docs/slo.md promises.
SLO = ^Benchmark(Remote|Programming|Beside|Arrival|FieldLoad|Questions|TierConnection|Elsewhere|RemotePodsLeave|MemoryLarge)$$

.PHONY: slo
slo: ## whether what docs/slo.md promises holds here, as root, with nothing else on the machine: some 40 minutes and 12 GB
	@$(ASSETS); go test -run '^$$' -bench '$(SLO)' -timeout 120m $(module)/test/bench -bench.goals -bench.large -bench.elsewhere=5m

.PHONY: cover
cover: ## which statements the tests reach, but for those of the lab: coverage.html
	@$(ASSETS); go test -p 1 -coverpkg=./enforcer/...,./controllers/... -coverprofile=coverage.out \
	  $(UNIT) $(LADDER) $(PACKETS) $(module)/test/controllers >/dev/null
	@go tool cover -html=coverage.out -o coverage.html
	@go tool cover -func=coverage.out | tail -n 1

##@ Build

.PHONY: build
build: ## bin/ringfence, and the same as the plugin of kubectl
	@CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o bin/ringfence .
	@ln -sf ringfence bin/kubectl-ringfence

.PHONY: programs
programs: # of the image, without what only debuggers read
	@for arch in $(subst $(comma), ,$(ARCHES)); do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -trimpath -ldflags '-s -w $(LDFLAGS)' -o dist/programs/ringfence-$$arch .; done

.PHONY: image
image: programs ## the image that is released: dist/ringfence-image.tar, dist/image (OCI) and dist/ringfence.spdx.json, for ARCHES, without Docker
	@go -C hack/image run . -version $(VERSION) -revision "$$(git rev-parse HEAD 2>/dev/null)" -created "$$(git log -1 --format=%ct 2>/dev/null || echo 0)" \
	  -arch $(ARCHES) -program $(CURDIR)/dist/programs/ringfence-{arch} -tags $(IMAGE)$(comma)ringfence:latest -out $(CURDIR)/dist

.PHONY: manifests
manifests: ## dist/install.yaml and the like for each overlay, with IMAGE (ringfence:VERSION) as image
	@hack/manifests.sh $(IMAGE) $(VERSION) dist

.PHONY: dist
dist: image ## all that a release of VERSION, such as v1.2.3, consists of: image, manifests, chart and bundle
	@hack/release.sh $(IMAGE) $(VERSION) dist

.PHONY: deps
deps: ## install what is missing of iptables, ipset, conntrack and iproute2 (apt)
	@hack/deps.sh

.PHONY: deps-test
deps-test: ## the same, a C compiler for the race detector, and nft
	@hack/deps.sh test

.PHONY: kube
kube: ## kube-apiserver, etcd, kubectl and the CNI plugins in the cache: published ones, or built from source (CI=true, KUBE_FROM=source, or no internet)
	@hack/kube/build.sh >/dev/null

.PHONY: clean
clean: ## remove what was built here; the cache stays
	@rm -rf bin dist coverage.out coverage.html

##@ Write

.PHONY: fmt
fmt: ## format the code
	@lint=$$(hack/tools/build.sh); "$$lint" fmt

.PHONY: generate
generate: ## write deep copies and CRDs anew, from the types in api
	@hack/generate/generate.sh

.PHONY: bundle
bundle: ## write the OLM bundle anew, and what its controller installs, from config
	@$(ASSETS); go -C hack/packages run . bundle

.PHONY: chart
chart: ## write the Helm chart anew, from config
	@$(ASSETS); go -C hack/packages run . chart

.PHONY: golden
golden: ## write the golden files of tests anew, from what the code does now
	@go test $$(git grep -l 'flag.Bool("update"' -- '*_test.go' | xargs -n 1 dirname | sort -u | sed 's,^,./,') -update

.PHONY: tidy
tidy: ## tidy go.mod, and those of what is under hack
	@for module in . hack/envtest hack/generate hack/gitops hack/image hack/packages hack/workflows; do go -C $$module mod tidy; done

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
