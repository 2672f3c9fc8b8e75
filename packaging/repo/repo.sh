#!/usr/bin/env bash
# Makes a signed apt repository of Debian packages:
#
#     packaging/repo/repo.sh DIST OUT KEY
#
# DIST holds the packages (./task package), OUT becomes the repository, and KEY is
# the fingerprint of a key in gpg's keyring that signs it. What OUT holds already
# stays in the repository, so that the versions before can be gone back to.
set -euo pipefail

hint() { echo "repo: $1" >&2; echo "  hint: $2" >&2; exit 1; }

[ $# -eq 3 ] || { echo "usage: repo.sh DIST OUT KEY" >&2; exit 2; }
dist=$1 out=$2 key=$3
for program in apt-ftparchive gpg gzip; do
	command -v "$program" >/dev/null || hint "$program is missing" "test/needs.sh installs it"
done
compgen -G "$dist/*.deb" >/dev/null || hint "there are no Debian packages in $dist" "./task package makes them"
gpg --batch --list-secret-keys "$key" >/dev/null 2>&1 ||
	hint "gpg has no secret key $key" "gpg --quick-generate-key 'NAME <MAIL>' ed25519 sign 2y makes one"

mkdir -p "$out/pool/main"
cp "$dist"/*.deb "$out/pool/main/"
out=$(cd "$out" && pwd)
cd "$out"
for arch in amd64 arm64; do
	dir=dists/stable/main/binary-$arch
	mkdir -p "$dir"
	apt-ftparchive --arch "$arch" packages pool/main >"$dir/Packages"
	gzip -9nkf "$dir/Packages"
done
# Written beside and moved into place, the signed file last: whoever reads in
# between sees the old repository, or a fault, and never an unsigned one.
apt-ftparchive -o APT::FTPArchive::Release::Origin=tlsmcp -o APT::FTPArchive::Release::Label=tlsmcp \
	-o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Codename=stable \
	-o APT::FTPArchive::Release::Architectures="amd64 arm64" -o APT::FTPArchive::Release::Components=main \
	release dists/stable >Release.new
gpg --batch --yes --local-user "$key" --digest-algo SHA512 --armor --detach-sign --output Release.gpg.new Release.new
gpg --batch --yes --local-user "$key" --digest-algo SHA512 --clearsign --output InRelease.new Release.new
gpg --batch --yes --export --output tlsmcp-archive-keyring.gpg "$key"
mv Release.new dists/stable/Release
mv Release.gpg.new dists/stable/Release.gpg
mv InRelease.new dists/stable/InRelease
echo "repo: $out, signed by $key"
