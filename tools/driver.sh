#!/bin/sh
# Makes sure that there is a Vulkan driver: installs Mesa's (with its software adapter) on Debian when there is none.
set -eu
case "$(uname -s)" in Linux) ;; *) exit 0 ;; esac
# Debian keeps ldconfig where only root's PATH leads.
PATH="$PATH:/usr/sbin:/sbin"
if ldconfig -p 2>/dev/null | grep -q libvulkan.so.1; then
    # Whoever names a driver by hand has one.
    if [ -n "${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}" ]; then exit 0; fi
    for folder in /usr/share/vulkan/icd.d /etc/vulkan/icd.d /usr/local/share/vulkan/icd.d /run/opengl-driver/share/vulkan/icd.d; do
        if ls "$folder"/*.json >/dev/null 2>&1; then exit 0; fi
    done
fi
if ! command -v apt-get >/dev/null; then
    echo "no Vulkan driver found: install your GPU's, or Mesa's software one" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    echo "no Vulkan driver found: as root, run apt-get install mesa-vulkan-drivers libvulkan1" >&2
    exit 1
fi
echo "installing mesa-vulkan-drivers (no Vulkan driver found)" >&2
$as_root apt-get update -qq >&2
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq mesa-vulkan-drivers libvulkan1 >&2
