#!/bin/sh
# Makes sure that there is a Vulkan driver: installs Mesa's (with its software adapter) on Debian when there is none.
set -eu
case "$(uname -s)" in Linux) ;; *) exit 0 ;; esac
for folder in /usr/share/vulkan/icd.d /etc/vulkan/icd.d /usr/local/share/vulkan/icd.d; do
    if ls "$folder"/*.json >/dev/null 2>&1 && ldconfig -p 2>/dev/null | grep -q libvulkan.so.1; then exit 0; fi
done
if ! command -v apt-get >/dev/null; then
    echo "no Vulkan driver found: install your GPU's, or Mesa's software one" >&2
    exit 1
fi
echo "installing mesa-vulkan-drivers (no Vulkan driver found)" >&2
if [ "$(id -u)" = 0 ]; then as_root=; else as_root=sudo; fi
$as_root apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq mesa-vulkan-drivers libvulkan1 >&2
