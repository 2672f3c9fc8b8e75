#!/bin/bash
# Runs inside the booted machine and writes one line for each rule to
# /opt/boot/report: "ok RULE" or "not ok RULE", what it printed behind it. The
# test reads the report when the machine has powered itself off.
cd /opt/boot
exec >/opt/boot/log 2>&1
: >report
report=/opt/boot/report
export DEBIAN_FRONTEND=noninteractive

# rule NAME COMMAND... holds when the command does.
rule() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "ok $name" >>"$report"
	else
		echo "not ok $name" >>"$report"
		sed 's/^/    /' <<<"$out" >>"$report"
	fi
}
# soon COMMAND... tries for a minute, and more where the command takes long.
soon() {
	for _ in $(seq 600); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	"$@"
}
fails() { ! "$@"; }
says() { # WORDS COMMAND...: it prints the words, however it ends
	local words=$1 out
	shift
	out=$("$@" 2>&1)
	grep -qF -- "$words" <<<"$out" || { echo "$out"; return 1; }
}
is() { # WANT COMMAND...
	local want=$1 out
	shift
	out=$("$@" 2>&1)
	[ "$out" = "$want" ] || { echo "got $out, want $want"; return 1; }
}
as() { runuser -u "$1" -- "${@:2}"; }
apt() { apt-get -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "$@"; }
repo() { # which build apt sees
	echo "deb [signed-by=/usr/share/keyrings/tlsmcp-archive-keyring.gpg] file:/opt/boot/$1 stable main" >/etc/apt/sources.list
	apt-get -qq update
}
call() { curl -sS --max-time 10 --cacert root.pem --cert "$1.crt" --key "$1.key" "https://localhost:${2:-8443}/"; }
pid() { systemctl show -p MainPID --value "${1:-tlsmcpd}"; }
ready() { soon curl -sf "http://127.0.0.1:${1:-9090}/readyz"; }
load() { ./probe load https://localhost:8443/ root.pem web.crt web.key "$1.json" & load=$!; sleep 1; }
unloaded() {
	sleep 1
	kill -TERM "$load" # rule runs this in a shell of its own, which cannot wait for it
	soon test -f "$1.json"
	cat "$1.json"
	[ "$(grep -o '"failed":0,' "$1.json")" ] && [ "$(grep -oE '"served":[0-9]+' "$1.json" | cut -d: -f2)" -gt 50 ]
}

./probe backend 127.0.0.1:3000 &
backend=$!
./probe postgres 127.0.0.1:5432 127.0.0.1:8443 &
postgres=$!
useradd -m alice
useradd -m bob
useradd -m carol

# --- the build before, installed by apt from a repository
rule "a signed repository is read" repo old
rule "the sidecar installs alone" apt install tlsmcp
rule "nothing runs or is enabled by the install alone" fails systemctl is-enabled tlsmcpd.service
rule "without a Hub the command line says how to get one" says "apt install tlsmcp-hub" tlsmcp hub fleet
rule "the Hub installs" apt install tlsmcp-hub
rule "users are made" id -u tlsmcp tlsmcp-hub
rule "groups are made" getent group tlsmcp tlsmcp-view
rule "state belongs to the sidecar alone" is "700 tlsmcp" stat -c '%a %U' /var/lib/tlsmcp
rule "the packaged configuration is valid" as alice tlsmcp config check /etc/tlsmcp/tlsmcp.toml
rule "the Hub waits for a call" is inactive systemctl is-active tlsmcp-hub.service
rule "its socket is open" systemctl is-active tlsmcp-hub.socket
rule "the daemon is enabled and started" systemctl enable --now tlsmcpd
rule "the daemon's call started the Hub" soon systemctl is-active tlsmcp-hub.service
rule "the first certificate is there and the daemon ready" ready
rule "the daemon runs as its user" is tlsmcp stat -c %U "/proc/$(pid)"
rule "it has confined itself" says '"msg":"confined"' journalctl -u tlsmcpd -o cat
rule "the units leave little to the daemon" systemd-analyze security --no-pager --threshold=20 tlsmcpd.service
rule "and to the Hub" systemd-analyze security --no-pager --threshold=20 tlsmcp-hub.service
rule "it may bind low ports and nothing else" is "CapEff:	0000000000000400" grep CapEff "/proc/$(pid)/status"

# --- who comes in
tlsmcp hub ca root >root.pem
rule "root issues certificates" tlsmcp cert issue --type client --service web --out .
rule "and another" tlsmcp cert issue --type client --service stranger --out .
rule "nobody is let in until somebody says who" fails call web
rule "an ordinary user may not operate the Hub" says "group" as alice tlsmcp cert list
usermod -aG tlsmcp alice
usermod -aG tlsmcp-view bob
rule "a member of tlsmcp sees the fleet" soon says " well" as alice tlsmcp hub fleet
rule "a member of tlsmcp issues" as alice tlsmcp cert issue --type client --service alice --out /home/alice/certs
rule "a member of tlsmcp sees how the sidecar is" says "ready" as alice tlsmcp status
rule "a member of tlsmcp-view sees it too" says "ready" as bob tlsmcp status --json
rule "a stranger is told which group to join" says "group" as carol tlsmcp status
rule "a member of tlsmcp-view looks" as bob tlsmcp cert list
rule "a member of tlsmcp-view issues nothing" fails as bob tlsmcp cert issue --type client --service bob --out /home/bob/certs
rule "the daemon's user operates nothing" fails as tlsmcp tlsmcp cert list
rule "a policy is set" tlsmcp hub policy set "$(hostname)" --allow web
rule "who is allowed comes in" soon call web
rule "the backend knows who" says "web" call web
rule "who is not is refused" fails call stranger
rule "without a certificate nobody comes in" fails curl -sS --cacert root.pem https://localhost:8443/

# --- the console and the MCP server, as an ordinary user of the group
console() { # in a terminal, until q ends it
	as alice tmux -f /dev/null new-session -d -x 120 -y 40 'tlsmcp console'
	soon shows boot-test || return 1
	as alice tmux capture-pane -p
	as alice tmux send-keys q
	soon fails as alice tmux has-session
}
shows() { as alice tmux capture-pane -p | grep -q "$1"; }
rule "the console starts, shows the sidecar and quits" console

# An AI client on another host reaches the MCP server of this one by ssh.
ssh-keygen -q -t ed25519 -N "" -f /root/.ssh/id_ed25519
install -d -m 700 -o alice -g alice /home/alice/.ssh
install -m 600 -o alice -g alice /root/.ssh/id_ed25519.pub /home/alice/.ssh/authorized_keys
hello='{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"boot","version":"1"}}}'
list='{"jsonrpc":"2.0","id":2,"method":"tools/list"}'
over_ssh() { (echo "$hello"; echo '{"jsonrpc":"2.0","method":"notifications/initialized"}'; echo "$list"; sleep 3) | timeout 30 ssh -o StrictHostKeyChecking=accept-new alice@localhost tlsmcp mcp; }
rule "the MCP server answers over ssh, in alice's name" says tlsmcp_cert_list over_ssh

rule "it runs as a service for a sidecar too" systemctl start tlsmcp-mcp
rule "and listens" soon test -S /run/tlsmcp-mcp/mcp.sock
systemctl stop tlsmcp-mcp

# --- reload, restart, crash
load reload
sed -i 's/^\[mtls\]/[mtls]\nallowed_services = ["stranger"]/' /etc/tlsmcp/tlsmcp.toml
before=$(pid)
rule "reload is told when it is done" systemctl reload tlsmcpd
rule "the reload took" soon call stranger
rule "it is the same process" is "$before" pid
rule "over a reload nobody is refused" unloaded reload
load restart
rule "restart works" systemctl restart tlsmcpd
rule "restart again" systemctl restart tlsmcpd
rule "it is another process" fails is "$before" pid
rule "over a restart nobody is refused" unloaded restart
echo 'broken' >>/etc/tlsmcp/tlsmcp.toml
rule "a broken configuration does not stop the daemon" systemctl reload tlsmcpd
rule "it serves on" call web
sed -i '$d' /etc/tlsmcp/tlsmcp.toml
systemctl reload tlsmcpd
before=$(pid)
mkdir -p /run/systemd/system/tlsmcpd.service.d
printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/tlsmcpd.service.d/quick.conf
systemctl daemon-reload
systemctl restart tlsmcpd
before=$(pid)
kill -STOP "${before:?}"
other() { local now; now=$(pid); [ "$now" != 0 ] && [ "$now" != "$before" ]; }
rule "the watchdog ends a daemon that hangs, and it comes back" soon other
rule "it serves again" soon call web
before=$(pid)
[ "$before" = 0 ] || kill -SEGV "$before"
rule "a crash is followed by a start" soon other
rule "and it serves" soon call web
rm -r /run/systemd/system/tlsmcpd.service.d
systemctl daemon-reload
systemctl stop tlsmcpd
rule "a daemon that was stopped leaves no socket behind" says "(7)" call web
rule "and starts again" systemctl start tlsmcpd
rule "and is ready again" ready

# --- a second sidecar
cat >/etc/tlsmcp/pay.toml <<'TOML'
version = 1
service_id = "pay"
[listen]
address = "127.0.0.1:443"
[mtls]
allowed_services = ["web"]
[admin]
address = "127.0.0.1:9091"
TOML
rule "a second sidecar starts, on a low port" systemctl enable --now tlsmcpd@pay
rule "it is ready" ready 9091
rule "it has a state directory of its own" test -d /var/lib/tlsmcp@pay/hub
rule "it lets in whom it should" soon call web 443

# --- MCP servers as units
cat >/etc/tlsmcp/mcp.toml <<'TOML'
version = 1
service_id = "mcp"
[listen]
address = "127.0.0.1:8444"
[backend]
protocol = "mcp-stdio"
command = ["/usr/bin/tlsmcp", "quickstart", "mcp-server"]
[mtls]
allowed_services = ["web"]
[admin]
address = "127.0.0.1:9092"
[mcp_gateway]
default = "allow"
child_socket = "/run/tlsmcp-stdio/session.sock"
TOML
mcp() { # what curl says of a request to the MCP server
	curl -sS --max-time 20 --cacert root.pem --cert web.crt --key web.key -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' "$@" https://localhost:8444/mcp
}
begin() { mcp -D mcp.head -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"boot","version":"1"}}}' | grep -q serverInfo; }
units() { systemctl list-units --plain --no-legend --state=active 'tlsmcp-stdio@*.service' | awk '{print $1}'; }
owner() { stat -c %U "/proc/$(systemctl show -p MainPID --value "$(units | head -1)")"; }
rule "the socket of MCP servers starts" systemctl start tlsmcp-stdio.socket
rule "nobody but the sidecar may connect to it" is "600 tlsmcp" stat -c '%a %U' /run/tlsmcp-stdio/session.sock
rule "a sidecar for them starts" systemctl start tlsmcpd@mcp
rule "it lets clients in" ready 9092
rule "an MCP session begins" soon begin
rule "it is one unit" is 1 sh -c "$(declare -f units); units | wc -l"
rule "of a user that is neither root nor the sidecar's" fails grep -E '^(root|tlsmcp)$' <<<"$(owner)"
rule "and that is there for it alone" grep -E '^(tlsmcp-stdio|[0-9]+|UNKNOWN)' <<<"$(owner)"
rule "the session ends" mcp -X DELETE -H "$(grep -i '^mcp-session-id' mcp.head | tr -d '\r')"
rule "and its unit with it" soon is "" units
systemctl stop tlsmcpd@mcp tlsmcp-stdio.socket
rm /etc/tlsmcp/mcp.toml

# --- upgrade and downgrade
load upgrade
repo new
rule "the upgrade installs" apt upgrade
rule "the new build runs" is "$(tlsmcpd --version)" "/proc/$(pid)/exe" --version
rule "the second sidecar runs the new build too" is "$(tlsmcpd --version)" "/proc/$(pid tlsmcpd@pay)/exe" --version
rule "over an upgrade nobody is refused" unloaded upgrade
rule "the configuration that was edited is kept" grep -q stranger /etc/tlsmcp/tlsmcp.toml
rule "what was issued before is still good" call web
load downgrade
repo old
rule "the build before installs over it" apt --allow-downgrades install tlsmcp=0.0.1-1 tlsmcp-hub=0.0.1-1
rule "it is ready after the downgrade" ready
rule "over a downgrade nobody is refused" unloaded downgrade
rule "a call after the downgrade" call web
repo new
rule "up again" apt upgrade

# --- the build on the FIPS module, in one repository with the ordinary one
offers() { curl -sS --max-time 10 --cacert root.pem --cert web.crt --key web.key "$@" https://localhost:8443/; }
config=/etc/tlsmcp/tlsmcp.toml
repo fips
rule "an upgrade makes no FIPS build of an ordinary one" apt upgrade
rule "it is the ordinary one still" says "ii" dpkg-query -W -f '${db:Status-Abbrev}' tlsmcp
printf '[fips]\nmode = "on"\n' >>$config
rule "which refuses fips.mode on, and names the package" says "install the package tlsmcp-fips" as tlsmcp tlsmcpd --config $config
rule "the FIPS build installs" apt install tlsmcp-fips tlsmcp-hub-fips
rule "the daemon that was enabled runs, on the validated module" ready
rule "which it names" says "uses validated module" "/proc/$(pid)/exe" --version
rule "the second sidecar runs too" ready 9091
rule "the status tells what is offered" soon says "all approved" as alice tlsmcp status
rule "and the score" says "FIPS 140-3: validated module" as alice tlsmcp score
rule "P-256 is served" offers --curves P-256
rule "X25519 alone is refused" says "alert handshake failure" offers --curves X25519
rule "ChaCha20-Poly1305 alone is refused" says "alert handshake failure" offers --tls13-ciphers TLS_CHACHA20_POLY1305_SHA256
rule "who was allowed comes in" call web
rule "and its Hub issues" as alice tlsmcp cert issue --type client --service fips --out /home/alice/fips
rule "to purge the ordinary one takes nothing from it" apt purge tlsmcp tlsmcp-hub
rule "its configuration is there" grep -q stranger $config
rule "it is enabled" systemctl is-enabled tlsmcpd.service
rule "the Hub's socket is open" systemctl is-active tlsmcp-hub.socket
rule "an upgrade leaves it in its place" apt upgrade
rule "it is the FIPS build still" says "ii" dpkg-query -W -f '${db:Status-Abbrev}' tlsmcp-fips
sed -i '/^\[fips\]$/,$d' $config
rule "the ordinary build takes its place again" apt install tlsmcp tlsmcp-hub
rule "and runs" ready
rule "without the module" fails says "FIPS" tlsmcpd --version
rule "to purge the FIPS build takes nothing" apt purge tlsmcp-fips tlsmcp-hub-fips
rule "the configuration is there" grep -q stranger $config
rule "the daemon is enabled" systemctl is-enabled tlsmcpd.service
rule "the Hub answers" as alice tlsmcp hub fleet
repo new

# --- sockets of systemd's
systemctl disable --now -q tlsmcpd@pay
systemctl stop tlsmcpd
rule "the socket units start" systemctl start tlsmcpd.socket tlsmcpd-admin.socket tlsmcpd-control.socket
rule "a call starts the daemon" soon call web
rule "metrics come by a socket too" ready
rule "and the control API" as alice tlsmcp status
systemctl stop tlsmcpd
rule "the control socket outlives the daemon, and its caller starts it" soon as alice tlsmcp status
systemctl stop tlsmcpd.socket tlsmcpd-admin.socket tlsmcpd-control.socket tlsmcpd.service
systemctl start tlsmcpd

# --- a secret by systemd
printf 'secret-token' | systemd-creds encrypt --name=hub-token - /etc/tlsmcp/hub-token.cred
mkdir -p /etc/systemd/system/tlsmcpd.service.d
printf '[Service]\nLoadCredentialEncrypted=hub-token:/etc/tlsmcp/hub-token.cred\n' >/etc/systemd/system/tlsmcpd.service.d/token.conf
systemctl daemon-reload
systemctl restart tlsmcpd
rule "an encrypted credential reaches the daemon's user" is secret-token as tlsmcp cat /run/credentials/tlsmcpd.service/hub-token
rm -r /etc/systemd/system/tlsmcpd.service.d /etc/tlsmcp/hub-token.cred
systemctl daemon-reload
systemctl restart tlsmcpd
rule "the journal has the daemon's log" says '"msg":"serving"' journalctl -u tlsmcpd -o cat
rule "no unit failed" is "" systemctl list-units --failed --plain --no-legend 'tlsmcp*'

# --- away with it
rm /etc/tlsmcp/pay.toml
rule "remove stops the daemon" apt remove tlsmcp tlsmcp-hub
rule "it is stopped" fails pgrep tlsmcpd
rule "the Hub is stopped" fails pgrep tlsmcp-hub
rule "the configuration stays" test -f /etc/tlsmcp/tlsmcp.toml
rule "the keys stay" test -f /var/lib/tlsmcp-hub/hub.db
rule "it installs again and goes on" apt install tlsmcp tlsmcp-hub
rule "the daemon that was enabled runs again after start" systemctl start tlsmcpd
rule "with the certificates of before" soon call web
rule "and the Hub answers again" soon as alice tlsmcp hub fleet
# --- the commands of the documentation
cat >/opt/boot/second.toml <<'TOML'
version = 1
service_id = "second"
[listen]
address = "127.0.0.1:8444"
[admin]
address = ""
[state]
dir = "/root/second"
[audit]
dir = "/root/second/audit"
[control]
socket = "/root/second/control.sock"
TOML
sed 's|^service_id.*|&\n[hub]\nurl = "https://hub.example:9443"|; s|/root/second|/root/elsewhere|' second.toml >elsewhere.toml
# with_hub COMMAND runs it while the Hub that docs/hub.md makes serves on its port.
with_hub() {
	local hub rc
	tlsmcp-hub serve --data /root/doc-hub --socket /root/doc-hub.sock --listen 127.0.0.1:9443 --name hub.example --public-url https://hub.example:9443 >/root/doc-hub.log 2>&1 &
	hub=$!
	soon curl -skf https://hub.example:9443/healthz
	eval "$1"
	rc=$?
	kill "$hub"
	wait "$hub"
	return $rc
}
export -f soon with_hub
export HOME=/root
page() { mkdir -p "/root/docs/$1" && cd "/root/docs/$1" || exit 1; }
ends() { timeout -k 5 60 bash -c "set -o pipefail; $1" </dev/null; }
stays() { # it runs on until it is told to end
	timeout -k 5 2 bash -c "$1" </dev/null
	[ $? = 124 ]
}
refuses() { fails ends "$1"; }
doc() {
	case $1 in
	ends) rule "docs: $2" ends "$3" ;;
	stays) rule "docs: $2" stays "$3" ;;
	fails) rule "docs: $2" refuses "$3" ;;
	esac
}
. /opt/boot/docs.sh
cd /opt/boot || exit 1

# what they left
rm -rf /etc/systemd/system/tlsmcpd.service.d /etc/tlsmcp/*.cred
rule "purge works" apt purge tlsmcp tlsmcp-hub
rule "purge takes the configuration" fails test -e /etc/tlsmcp
rule "purge leaves the sidecar's keys" test -d /var/lib/tlsmcp/hub
rule "purge leaves the CA's keys" test -f /var/lib/tlsmcp-hub/hub.db
rule "purge leaves no link of a unit" is "" find /etc/systemd -name '*tlsmcp*'
kill "$backend" "$postgres"
wait
echo done >>report
