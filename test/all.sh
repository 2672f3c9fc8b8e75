#!/usr/bin/env bash
# Everything that CI runs, in order, with the time that each stage took. The
# first stage that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS=-buildvcs=false GOWORK=off
# nginx and haproxy live in sbin, which a plain user's PATH may leave out.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
started=$SECONDS
times=()

stage() {
	local name=$1 from=$SECONDS
	shift
	echo "== $name"
	if ! "$@"; then
		echo "== $name: FAILED after $((SECONDS - from))s" >&2
		exit 1
	fi
	times+=("$(printf '%5ds  %s' $((SECONDS - from)) "$name")")
}

stage needs test/needs.sh
stage gofmt test/gofmt.sh
stage vet go vet ./...
stage staticcheck go tool -modfile=tools/go.mod staticcheck ./...
stage govulncheck test/vuln.sh
stage modules go mod tidy -diff
stage generate ./task generate
stage build ./task build
# Which has neither what Linux has nor what Unix has.
stage windows env GOOS=windows CGO_ENABLED=0 go build -trimpath -o /dev/null ./cmd/tlsmcp
# The whole tree, the floors (arch_test.go) and the end-to-end suites included.
# -p 2: the suites open thousands of sockets and measure deadlines, so no more
# packages at once than a small machine has cores. -count=1: the suites that
# build and run the programs would otherwise be answered from the cache after a
# change in what they build.
stage tests go test -race -count=1 -p 2 -timeout 15m ./...
# A module of its own, so that the product has none of Kubernetes' types.
stage kubernetes sh -c 'cd packaging/kubernetes/validate && go vet ./... && go test -count=1 ./...'
# The packages, built, checked and booted under a real systemd.
stage boot ./task boot
stage fuzz test/fuzz.sh "budget:${FUZZBUDGET:-120}"

echo "== done in $((SECONDS - started))s"
printf '%s\n' "${times[@]}"
