#!/usr/bin/env bash
# The programs that the tests and the benchmark use, besides Go. As root it
# installs what is missing; otherwise it says what is missing and how to get it.
set -euo pipefail

# Program and Debian package, a pair a line. gcc is for the race detector.
needs='
gcc gcc
git git
nginx nginx
haproxy haproxy
openssl openssl
curl curl
tmux tmux
h2load nghttp2-client
wrk wrk
initdb postgresql
npm npm
zsh zsh
fish fish
gnutls-serv gnutls-bin
selfserv libnss3-tools
sslscan sslscan
promtool prometheus
mmdebstrap mmdebstrap
systemd-nspawn systemd-container
apt-ftparchive apt-utils
gpg gpg
lintian lintian
rpm rpm
rpmlint rpmlint
buildah buildah
ip iproute2
testssl testssl.sh
'

# nginx and haproxy live in sbin, which a plain user's PATH may leave out.
# Debian keeps PostgreSQL's programs out of it too.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
for dir in /usr/lib/postgresql/*/bin; do
	PATH=$PATH:$dir
done
missing=()
packages=()
while read -r program package; do
	[ -n "$program" ] || continue
	if ! command -v "$program" >/dev/null; then
		missing+=("$program")
		packages+=("$package")
	fi
done <<<"$needs"
# A compiler without the C library's headers cannot build the race detector.
if command -v gcc >/dev/null && ! echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1; then
	missing+=("stdlib.h")
	packages+=("libc6-dev")
elif ! command -v gcc >/dev/null; then
	packages+=("libc6-dev")
fi
# What completion in bash stands on is no program.
if [ ! -e /usr/share/bash-completion/bash_completion ]; then
	missing+=("bash-completion")
	packages+=("bash-completion")
fi

if [ ${#missing[@]} -eq 0 ]; then
	echo "needs: all there"
	exit 0
fi
echo "needs: missing: ${missing[*]}"
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "needs: install them with: sudo apt-get install --no-install-recommends ${packages[*]}" >&2
	exit 1
fi

# Debian starts nginx, haproxy and PostgreSQL once they are installed. A policy-rc.d that
# says no for the duration keeps them down; one that is already there is left
# as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}"
