#!/usr/bin/env bash
# Installs these Debian packages if they are missing, where that can be done (Debian or Ubuntu, as root), and says so.
# Where it can't, it says what is missing and what that means, and goes on: those who need it say again that they lack it.
set -euo pipefail

say() { printf '# %s\n' "$*"; }
has() { dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null | grep -q '^installed$'; }

missing=()
for package in "$@"; do
    has "$package" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    say "not installed, and we can't (no apt-get, or not root): ${missing[*]}"
    exit 0
fi
say "installing from Debian: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install --yes --quiet --no-install-recommends "${missing[@]}" >/dev/null 2>&1; }
install || { apt-get update --quiet >/dev/null 2>&1 && install; } || say "could not be installed: ${missing[*]}"
