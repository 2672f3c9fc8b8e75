#!/usr/bin/env bash
# govulncheck. A finding fails. Its database is on the network: where that
# cannot be reached the check says so and goes on, since a machine without a
# way out must still be able to run the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
rc=0
out=$(go tool -modfile=tools/go.mod govulncheck ./... 2>&1) || rc=$?
if [ "$rc" -ne 0 ] && grep -qE '^govulncheck: (fetching vulnerabilities|loading .*vuln\.go\.dev|Get ")' <<<"$out"; then
	printf '%s\n' "$out" | tail -n 1
	echo "govulncheck: database unreachable, not checked"
	exit 0
fi
printf '%s\n' "$out"
exit "$rc"
