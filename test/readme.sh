#!/usr/bin/env bash
# Every command that the README shows must exist: each `./task NAME` is a task,
# and each `tlsmcp VERB …` is a verb of the binary in bin/.
set -euo pipefail
cd "$(dirname "$0")/.."
fail=0
checked=0
tasks=$(./task --list-all --json | sed -n 's/^ *"name": "\(.*\)",$/\1/p')
for name in $({ grep -oE '\./task [a-z]+' README.md || true; } | cut -d' ' -f2 | sort -u); do
	checked=$((checked + 1))
	grep -qx "$name" <<<"$tasks" || { echo "README: ./task $name: no such task" >&2; fail=1; }
done
# Lines of shell blocks that start with tlsmcp, with or without a path before it.
verbs=$(awk '/^```sh/ { on = 1; next } /^```/ { on = 0 } on' README.md |
	sed -nE 's#^(\$ )?(sudo )?([^ ]*/)?tlsmcp (([a-z]+)( [a-z]+)?).*#\4#p' | sort -u)
while read -r verb sub; do
	[ -n "$verb" ] || continue
	checked=$((checked + 1))
	# cobra answers for an unknown verb with the usage of what it does know, so
	# the text must name the verb; and the one below it, when the verb has some.
	help=$(bin/tlsmcp "$verb" $sub --help 2>/dev/null || true)
	want="tlsmcp $verb"
	if [ -n "$sub" ] && grep -q "tlsmcp $verb \[command\]" <<<"$help"; then
		want="tlsmcp $verb $sub"
	fi
	if ! grep -q "$want" <<<"$help"; then
		echo "README: tlsmcp $verb $sub: no such command" >&2
		fail=1
	fi
done <<<"$verbs"
if [ "$checked" -eq 0 ]; then
	echo "README: shows no command at all" >&2
	exit 1
fi
[ "$fail" -ne 0 ] || echo "README: $checked commands exist"
exit "$fail"
