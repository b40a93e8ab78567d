#!/bin/sh
# Installs what building and running a lab needs on this machine and is missing: a C compiler and libseccomp for runc,
# pip for Envoy, and the programs that go into the proxy image. With `--with kind` it adds what the node image of kind needs.
# Does nothing, quickly, where nothing is missing.
#
# With `--with browser`: Chromium, which tests of pages open them in.
# With the word conformance: what `make conformance` needs, too.
#
# Debian and Ubuntu, as root. Elsewhere it tells what is missing. Go is checked, never installed.
set -eu

# The oldest Go that every pinned module builds with: the highest "go" line of go.mod and scripts/components/*/go.mod.
here=$(cd "$(dirname "$0")/.." && pwd)
wanted_go=$(sed -n 's/^go \([0-9.]*\)$/\1/p' "$here/go.mod" "$here"/scripts/components/*/go.mod | sort -V | tail -n 1)

# /usr/sbin is not in every user's PATH, and sudo drops /usr/local/go/bin.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/go/bin

missing=
need() { # need PACKAGE PROGRAM...
	package=$1
	shift
	for program in "$@"; do
		command -v "$program" >/dev/null 2>&1 || { missing="$missing $package"; return; }
	done
}
need_file() { # need_file PACKAGE PATTERN...: any of the patterns
	package=$1
	shift
	for file in "$@"; do
		[ -e "$file" ] && return
	done
	missing="$missing $package"
}

need gcc gcc
need_file libc6-dev /usr/include/stdio.h
need pkg-config pkg-config
need_file libseccomp-dev /usr/include/seccomp.h
need curl curl
need openssl openssl
need iproute2 ip ss
need nftables nft
need iptables xtables-nft-multi xtables-legacy-multi
if [ "${1:-}" = conformance ]; then # what Kubernetes' own tests run in their pods
	need netcat-openbsd nc
	need bind9-dnsutils dig
fi
need coreutils cat env ls sleep
need dash dash
need_file ca-certificates /usr/share/ca-certificates/mozilla
need git git
need make make
case "$*" in
"" | conformance) ;;
"--with kind")
	need debootstrap debootstrap
	need_file debian-archive-keyring /usr/share/keyrings/debian-archive-keyring.gpg
	;;
"--with browser")
	for program in chromium chromium-browser google-chrome; do
		command -v "$program" >/dev/null 2>&1 && browser=$program
	done
	[ -n "${browser:-}" ] || need chromium chromium
	;;
*)
	echo "deps: $*: wanted nothing, --with kind, --with browser or conformance" >&2
	exit 2
	;;
esac
# Asking pip for its version takes longer than everything else here.
python3 -c 'import sys, importlib.util as u; sys.exit(not u.find_spec("pip"))' 2>/dev/null || command -v pip3 >/dev/null 2>&1 ||
	missing="$missing python3-pip"

if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "deps: missing, by their Debian names:$missing" >&2
		echo "deps: this is not Debian or Ubuntu: install them with your package manager" >&2
		exit 3
	fi
	if [ "$(id -u)" -ne 0 ]; then
		echo "deps: missing:$missing" >&2
		echo "deps: run as root: sudo apt-get install$missing" >&2
		exit 3
	fi
	echo "deps: installing$missing"
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086 # one word per package
	install() { apt-get install -y --no-install-recommends $missing; }
	install || { apt-get update && install; } || {
		echo "deps: apt-get could not install$missing: check the network and /etc/apt/sources.list" >&2
		exit 3
	}
fi

if ! command -v go >/dev/null 2>&1; then
	echo "deps: Go is missing: install Go $wanted_go or later from https://go.dev/dl/" >&2
	exit 3
fi
version=$(go env GOVERSION)
if [ "$(printf '%s\n' "$wanted_go" "${version#go}" | sort -V | head -n 1)" != "$wanted_go" ] && [ "$(go env GOTOOLCHAIN)" = local ]; then
	echo "deps: Go is too old: wanted $wanted_go or later, seen $version: install it from https://go.dev/dl/" >&2
	exit 3
fi

# The kernel's default of 128 inotify instances for all processes of a user is used up by two small meshes.
limit=/proc/sys/fs/inotify/max_user_instances
if [ -w "$limit" ] && [ "$(cat "$limit")" -lt 1024 ]; then
	echo 1024 >"$limit"
	echo "deps: raised fs.inotify.max_user_instances to 1024 until the next boot"
fi
