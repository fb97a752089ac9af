#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs inside the root file system of the sandbox's image and makes it one for a virtual machine: a kernel of its own in
# place of the stand-in for loading modules. The older of Debian's kernels is installed, the newer one only downloaded.
set -eu
export DEBIAN_FRONTEND=noninteractive
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd

dpkg-divert --list | sed -n 's/^local diversion of \(.*\) to .*\.real$/\1/p' | while read -r program; do
  rm -f "$program"
  dpkg-divert --quiet --local --rename --remove "$program"
done
systemctl --quiet disable neuronops-modules.service
rm -rf /etc/systemd/system/neuronops-modules.service

# The newer kernel is the one of Debian's backports.
sed -n 's/ bookworm / bookworm-backports /p' /etc/apt/sources.list > /etc/apt/sources.list.d/backports.list
apt-get -qq update
versions=$(apt-cache madison linux-image-cloud-amd64 | awk '{print $3}' | sort --version-sort --unique)
package_of() { apt-cache show "linux-image-cloud-amd64=$1" | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p'; }
older=$(package_of "$(echo "$versions" | head -n 1)")
newer=$(package_of "$(echo "$versions" | tail -n 1)")
[ "$older" != "$newer" ] || { echo "The package mirror has one kernel only: $older" >&2; exit 1; }
kernel=${older#linux-image-} newer_kernel=${newer#linux-image-}

# The boot needs three modules and nothing else. initramfs-tools takes 35 seconds to pack that on an emulated processor.
mkdir -p /etc/tiny-initramfs
printf 'AUTO_MODULES=no\nINCLUDE_MODULES=virtio_pci,virtio_blk,ext4\nMICROCODE=no\n' > /etc/tiny-initramfs/tiny-initramfs.conf
# It copies the newer kernel's modules as they are, compressed, and its init reads plain ones only.
mkdir -p /etc/tiny-initramfs/hooks.end
cat > /etc/tiny-initramfs/hooks.end/plain-modules <<'HOOK'
cd "$initramfs_dir"
find . -name '*.ko.xz' -exec xz --decompress {} +
sed -i 's/\.ko\.xz/.ko/' modules
find . ! -name . | cpio --quiet -o -R 0:0 -H newc | gzip > "$image_name"
cd "$curdir"
HOOK

# Debian's cloud image has no compiler either. It is here, with all that the role asks Debian for but the headers of the two
# kernels themselves, because unpacking takes minutes on an emulated processor; that the role brings it is shown in
# containers.
headers_of() { apt-cache depends "linux-headers-$1" | awk '/Depends:/ {print $2}' | grep -v '^linux-image-'; }
# shellcheck disable=SC2046  # package names
apt-get -qq -y install --no-install-recommends "$older" tiny-initramfs dkms gcc make udev git pciutils wget \
  apt-utils "linux-headers-$kernel" "linux-headers-$newer_kernel" $(headers_of "$kernel") $(headers_of "$newer_kernel")
# What an apt update reads is kept small for the same reason: of Debian's archive, the packages that are still to come.
cd /srv
apt-get -qq download "$newer" "linux-headers-$kernel" "linux-headers-$newer_kernel"
apt-ftparchive packages . > Packages
echo 'deb [trusted=yes] file:/srv ./' > /etc/apt/sources.list
rm /etc/apt/sources.list.d/backports.list
apt-get -qq update

# The stand-in for the hardware is there for both kernels before either boots.
for release in "$kernel" "$newer_kernel"; do
  make -C "/lib/modules/$release/build" M=/usr/src/stand-in-hardware-1 modules
  install -D -m 644 -t "/lib/modules/$release/updates" /usr/src/stand-in-hardware-1/*.ko
  make -C "/lib/modules/$release/build" M=/usr/src/stand-in-hardware-1 clean
done
depmod "$kernel"
# The newer kernel came with its headers.
apt-get -qq -y purge "linux-headers-$kernel" "linux-headers-$newer_kernel" "$newer"
# A machine has its hardware before any driver is loaded, so this comes before neuron.conf.
echo stand_in_hardware > /etc/modules-load.d/00-stand-in-hardware.conf

printf '/dev/vda / ext4 rw,noatime 0 1\n' > /etc/fstab
printf '[Match]\nName=e*\n[Network]\nDHCP=ipv4\n' > /etc/systemd/network/20-wired.network
systemctl --quiet enable systemd-networkd.service
echo neuron-vm > /etc/hostname
printf '%s %s\n' "$kernel" "$newer_kernel" > /kernels
