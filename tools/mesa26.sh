#!/usr/bin/env bash
# tools/mesa26.sh COMMAND [ARG...]: runs a command in this folder with Mesa 26's software Vulkan, which has cooperative matrices
# (8x8x8, f16 operands), on a Debian or Ubuntu machine whose own Mesa is older. The first call unpacks Debian 13 with its
# backports into a folder ($MESA26_ROOT, else /var/tmp/mesa26), 90 seconds; later ones start at once. Needs root, for chroot.
set -euo pipefail
root=${MESA26_ROOT:-/var/tmp/mesa26}
say() { echo "mesa26: $*" >&2; }

if [ "$(id -u)" != 0 ]; then
  say "needs root, for chroot and bind mounts"
  exit 1
fi

if [ ! -e "$root/.ready" ]; then
  command -v debootstrap >/dev/null || { apt-get update -q && apt-get install -y -q debootstrap; } >&2
  # The mirror that this machine already uses, if it is a Debian; else Debian's own.
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    grep -oE 'https?://[^ ]*/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
  mirror=${mirror:-https://deb.debian.org/debian}
  say "unpacking Debian 13 from $mirror into $root"
  rm -rf "$root"
  debootstrap --variant=minbase --include=ca-certificates trixie "$root" "$mirror" >&2
  echo "deb $mirror trixie-backports main" >>"$root/etc/apt/sources.list"
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  # Proxies and the like.
  cp -r /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
  chroot "$root" sh -c 'apt-get update -q && apt-get install -y -q -t trixie-backports mesa-vulkan-drivers' >&2
  touch "$root/.ready"
fi

[ $# -gt 0 ] || exit 0
# Mounts are made in a namespace of their own, so that nothing is left of them.
exec unshare -m bash -euc '
  root=$1; here=$2; shift 2
  show() { mkdir -p "$root$1"; mount --bind "$1" "$root$1"; }
  show "$here"
  case $1 in
    "$here"/*) ;;
    # Cargo may keep its target folder elsewhere.
    /*) [ -e "$root$1" ] || show "$(dirname "$1")" ;;
  esac
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  exec chroot "$root" env -C "$here" XDG_RUNTIME_DIR=/tmp "$@"
' mesa26 "$root" "$PWD" "$@"
