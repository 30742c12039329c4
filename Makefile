# make check is what must be green before a commit; CI runs the same and more.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@latest
# Packages in which goroutines meet.
CONCURRENT = ./internal/audit ./internal/store ./internal/wire ./internal/ledger ./internal/alert ./internal/web ./internal/attack ./internal/mirror ./internal/history
FUZZTIME ?= 60s

.PHONY: build check fmt vet staticcheck test race vuln fuzz bench generate docs image dist deploy

build:
	CGO_ENABLED=0 go build -trimpath -o immuclient ./cmd/immuclient

check: fmt vet staticcheck test race vuln

fmt:
	@out=$$(gofmt -l cmd evidence examples internal proof); if [ -n "$$out" ]; then echo "not gofmt-ed:"; echo "$$out"; exit 1; fi

vet:
	go vet ./...

staticcheck:
	go run $(STATICCHECK) ./...

test:
	go test ./...

# The race detector needs cgo, the program does not.
race:
	CGO_ENABLED=1 go test -race $(CONCURRENT)

# The vulnerability database is not reachable from everywhere; a finding fails, a missing network does not.
vuln:
	@out=$$(go run $(GOVULNCHECK) ./... 2>&1); code=$$?; \
	if [ $$code -eq 3 ]; then echo "$$out"; exit 1; elif [ $$code -ne 0 ]; then echo "govulncheck could not run: $$(echo "$$out" | tail -1)"; fi

# Every fuzz target for FUZZTIME each.
fuzz:
	@.ci/fuzz $(FUZZTIME)

# What docs/performance.md tells, and the curve in it. It takes a quarter of an
# hour and 8 GB of memory. IMMUDB_ADDRESS (host:port) has a running immudb
# verified too; nothing is written to it.
bench:
	go test -run '^$$' -bench . -benchmem ./proof ./evidence ./internal/wire ./internal/verify ./internal/ledger ./internal/store ./internal/mirror ./internal/web
	go test -run '^$$' -bench 'Quiet|Many' -benchmem ./internal/audit
	go test -run '^$$' -bench . -benchtime 2x -timeout 1h ./internal/bench
	@growth=$$(mktemp) && trap 'rm -f $$growth' EXIT && \
	go test -run '^$$' -bench Growth -benchtime 300x -timeout 1h ./internal/audit -grown-to 10000000 | tee $$growth && \
	(cd tools/curve && go run .) <$$growth >docs/growth.svg.new && mv docs/growth.svg.new docs/growth.svg

generate:
	go generate ./internal/wire/schema

# The sample configuration follows the table of settings.
docs:
	go test ./internal/config -run '^(TestSample|TestHelp)$$' -update

# What is handed out, into dist/: the same bytes from the same commit.
image:
	cd tools/release && go run . image

dist:
	cd tools/release && go run . dist

# Manifests, compose file and alert rules; promtool comes with Prometheus.
deploy:
	cd tools/manifests && go vet . && go test -count=1 .
	cd deploy/prometheus && promtool check config prometheus.yml && promtool check rules immuaudit.rules.yml && promtool test rules *.test.yml
