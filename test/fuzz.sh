#!/usr/bin/env bash
# Runs every fuzz target in the tree, found with `go test -list`.
#   test/fuzz.sh TIME          each target for TIME (a Go duration)
#   test/fuzz.sh budget:SECS   all of them together for about SECS seconds,
#                              each between 3 and 10
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10s}

# `go test -list` prints the names and then "ok PACKAGE TIME". A package whose
# tests do not build fails here, before any fuzzing.
list=$(go test -list '^Fuzz' ./...)
targets=$(awk '/^Fuzz/ { names[++n] = $1 } $1 == "ok" { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }' <<<"$list")
if [ -z "$targets" ]; then
	echo "fuzz: no target found" >&2
	exit 1
fi
count=$(wc -l <<<"$targets")
case $time in
budget:*)
	each=$((${time#budget:} / count))
	[ "$each" -le 10 ] || each=10
	[ "$each" -ge 3 ] || each=3
	time=${each}s
	;;
esac
echo "fuzz: $count targets, $time each"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# -run='^$': the unit tests have run already. The minimizer may go on long past
# the time, so it is bounded too.
fuzz() {
	go test -run='^$' -fuzz="^$2\$" -fuzztime="$time" -fuzzminimizetime=5s "$1" </dev/null 2>&1 | tee "$log"
}

while read -r package name; do
	echo "fuzz: $package $name"
	if fuzz "$package" "$name"; then
		continue
	fi
	# On a busy machine the fuzzing engine may take the end of its own time for
	# a failure. That leaves no failing input behind, and only then is there a
	# second try.
	if ! grep -q 'context deadline exceeded' "$log" || grep -q 'Failing input' "$log"; then
		exit 1
	fi
	echo "fuzz: $name ran into the end of its time, once more"
	fuzz "$package" "$name"
done <<<"$targets"
