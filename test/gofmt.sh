#!/usr/bin/env bash
# Fails, and names the files, when a Go file is not as gofmt would have it.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=$(gofmt -l .)
if [ -n "$bad" ]; then
	printf 'not formatted (run gofmt -w):\n%s\n' "$bad" >&2
	exit 1
fi
