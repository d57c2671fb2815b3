#!/usr/bin/env bash
# Prints the path of a real `consul` binary, fetching one when the machine has none. Changes no system file.
#
# Looked for in this order:
#   1. $CONSUL_BIN
#   2. consul on PATH
#   3. the cache: consul/ in $TWOSTEP_CACHE, else the checkout's .cache, else the user's cache folder
#   4. HashiCorp's release archive, pinned and checked by SHA-256
#   5. Debian's package (bullseye: 1.8.7), from the mirror this machine's own apt sources name, unpacked into the cache
# Exit status: 0 with the path on standard output; 1 with one line on standard error that says what to do.
set -euo pipefail

release=1.21.5
debian_sha256=e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9 # consul 1.8.7+dfsg1-2+b3, amd64

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
if [ -f "$top/pyproject.toml" ]; then checkout_cache=$top/.cache; fi # installed: the user's own cache folder
cache=${TWOSTEP_CACHE:-${checkout_cache:-${XDG_CACHE_HOME:-$HOME/.cache}/twostep}}/consul
python=$(command -v python3.11 || command -v python3 || true)

note() { printf 'consul: %s\n' "$*" >&2; }
usable() { [ -x "$1" ] && "$1" version >/dev/null 2>&1; }
matches() { printf '%s  %s\n' "$2" "$1" | sha256sum --check --status -; }

release_sha256() {
  case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) echo linux_amd64 2dfb63fcabe9f15b956cf408248d9ebe36cfd662ca182352942a3bd4e5d5faca ;;
    Linux-aarch64) echo linux_arm64 e7d198f9eb8c5846c1d6371985be1ba356e7aa73e6d63e2196f44ae771b87861 ;;
    Darwin-x86_64) echo darwin_amd64 bcd684344eebf40aa7e2b42f5b858519b7ab87222646f7274035452ecce52f3b ;;
    Darwin-arm64) echo darwin_arm64 36e141a33a3b34628ff02ec256528109a54712e9dacff3a3bd11d7e7d17d05f2 ;;
  esac
}

# Downloads and unpacks with Python alone: neither curl nor unzip is assumed.
from_release() {
  local platform sum
  read -r platform sum < <(release_sha256) || return 1
  [ -n "$python" ] || return 1
  note "asking HashiCorp for consul $release ($platform)"
  "$python" - "https://releases.hashicorp.com/consul/$release/consul_${release}_$platform.zip" "$sum" "$1" <<'PY' || return 1
import hashlib, io, pathlib, sys, urllib.request, zipfile
url, expected, target = sys.argv[1:]
try:
    with urllib.request.urlopen(url, timeout=10) as reply:
        archive = reply.read()
except OSError as error:
    sys.exit(f"consul: {url}: {error}")
if hashlib.sha256(archive).hexdigest() != expected:
    sys.exit(f"consul: {url} does not have the pinned SHA-256")
(pathlib.Path(target) / "consul").write_bytes(zipfile.ZipFile(io.BytesIO(archive)).read("consul"))
PY
  chmod +x "$1/consul"
}

# The mirror this machine already uses for Debian itself, in either of apt's two formats.
debian_mirror() {
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    sed -nE -e 's/^URIs:[[:space:]]*([^[:space:]]+).*/\1/p' -e 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\2/p' |
    grep -E '/debian/?$' | head -n 1
}

from_debian() {
  local mirror apt
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] && command -v apt-get dpkg >/dev/null || return 1
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || return 1
  note "taking Debian's consul 1.8.7 into $cache"
  apt=$1/apt
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s bullseye main\n' "$mirror" >"$apt/sources.list"
  local private=(-o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "Dir::Etc::SourceList=$apt/sources.list"
    -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root -o Acquire::Retries=2)
  apt-get "${private[@]}" -qq update >&2 || return 1
  (cd "$1" && apt-get "${private[@]}" -qq download consul >&2) || return 1
  local package
  package=$(echo "$1"/consul_*.deb)
  matches "$package" "$debian_sha256" || { note "$package does not have the pinned SHA-256"; return 1; }
  dpkg -x "$package" "$1/unpacked" && mv "$1/unpacked/usr/bin/consul" "$1/consul"
}

if [ -n "${CONSUL_BIN:-}" ]; then
  usable "$CONSUL_BIN" || { note "CONSUL_BIN=$CONSUL_BIN does not run; unset it or point it at a consul binary"; exit 1; }
  echo "$CONSUL_BIN"
  exit 0
fi
if command -v consul >/dev/null && usable "$(command -v consul)"; then
  command -v consul
  exit 0
fi
if usable "$cache/consul"; then
  echo "$cache/consul"
  exit 0
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
if { from_release "$work" || from_debian "$work"; } && usable "$work/consul"; then
  mv "$work/consul" "$cache/consul" # a rename, so that two installations at once cannot leave half a file
  echo "$cache/consul"
  exit 0
fi
note "none found and none could be fetched; install Consul (https://developer.hashicorp.com/consul/install) or set CONSUL_BIN"
exit 1
