#!/bin/bash
# Runs the two images side by side, as a container engine would: each in its own
# root, as its own user, without a capability, on a network of their own. It is
# called in such a network, with the roots that buildah unpacked, a directory for
# its report and the probe of the boot test.
hub=$1 sidecar=$2 dir=$3
cd "$dir" || exit 1
exec >log 2>&1
: >report
rule() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "ok $name" >>report
	else
		echo "not ok $name" >>report
		sed 's/^/    /' <<<"$out" >>report
	fi
}
soon() {
	for _ in $(seq 600); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	"$@"
}
fails() { ! "$@"; }
# inside ROOT COMMAND...: as an engine starts it, whose user is not root
inside() { chroot --userspec=65532:65532 --groups= "$@"; }
ip link set lo up
for root in "$hub" "$sidecar"; do
	mkdir -p "$root/proc" "$root/dev"
	mount -t proc proc "$root/proc"
	mknod -m 666 "$root/dev/null" c 1 3
done
trap 'kill $(jobs -p); wait; umount "$hub/proc" "$sidecar/proc"' EXIT

./probe backend 127.0.0.1:3000 &
chroot --userspec=65532:65532 --groups= "$hub" /usr/bin/tlsmcp-hub serve --data /var/lib/tlsmcp-hub --listen 0.0.0.0:9443 --public-url https://127.0.0.1:9443 >hub.log 2>&1 &
rule "the Hub's health check passes" soon inside "$hub" /usr/bin/tlsmcp hub fleet --hub-socket /var/lib/tlsmcp-hub/hub.sock --json
cli() { inside "$hub" /usr/bin/tlsmcp "$@" --hub-socket /var/lib/tlsmcp-hub/hub.sock; }
mkdir -p "$sidecar/run/secrets"
cli hub token create --join app >"$sidecar/run/secrets/join-token"
chown -R 65532 "$sidecar/run/secrets"
cat >"$sidecar/etc/tlsmcp/tlsmcp.toml" <<'TOML'
version = 1
service_id = "app"
[hub]
url = "https://127.0.0.1:9443"
auth_token_file = "/run/secrets/join-token"
[control]
viewers = ["uid:65532"]
TOML
rule "before the daemon runs the sidecar's health check fails" fails inside "$sidecar" /usr/bin/tlsmcp status
chroot --userspec=65532:65532 --groups= "$sidecar" /usr/bin/tlsmcpd >sidecar.log 2>&1 &
daemon=$!
rule "the sidecar's health check passes once it has joined" soon inside "$sidecar" /usr/bin/tlsmcp status --json
rule "it runs as a user without privileges" grep -q '^Uid:.65532' "/proc/$daemon/status"
rule "and without capabilities" grep -q '^CapEff:.0000000000000000' "/proc/$daemon/status"
rule "a policy is set" cli hub policy set app --allow web
cli hub ca root >root.pem
rule "a certificate is issued" cli cert issue --type client --service web --out /tmp
cp "$hub"/tmp/web.* .
call() { curl -sS --max-time 10 --cacert root.pem --cert web.crt --key web.key https://localhost:8443/; }
rule "who is allowed comes in" soon call
rule "without a certificate nobody comes in" fails curl -sS --cacert root.pem https://localhost:8443/
rule "the health check may look and not change anything" fails inside "$sidecar" /usr/bin/tlsmcp drain
kill -TERM "$daemon"
wait "$daemon"
rule "it stops in order" test $? = 0
cat hub.log sidecar.log
echo done >>report
