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
kernel=${older#linux-image-}

# The boot needs three modules. All of them, which is the default, take minutes to pack on an emulated processor.
mkdir -p /etc/initramfs-tools/conf.d
echo MODULES=list > /etc/initramfs-tools/conf.d/virtual-machine
printf 'virtio_pci\nvirtio_blk\next4\n' > /etc/initramfs-tools/modules

# Debian's cloud image has no compiler either. It is here because unpacking one takes minutes on an emulated processor;
# that the role brings it is shown in containers.
apt-get -qq -y install --no-install-recommends "$older" initramfs-tools dkms gcc make udev "linux-headers-$kernel"
dkms install stand-in-hardware/1 -k "$kernel"
apt-get -qq -y purge "linux-headers-$kernel"
apt-get -qq -y autoremove --purge
# A machine has its hardware before any driver is loaded, so this comes before neuron.conf.
echo stand_in_hardware > /etc/modules-load.d/00-stand-in-hardware.conf
apt-get -qq -y install --no-install-recommends --download-only \
  "$newer" "linux-headers-$kernel" "linux-headers-${newer#linux-image-}"

printf '/dev/vda / ext4 rw,noatime 0 1\n' > /etc/fstab
printf '[Match]\nName=e*\n[Network]\nDHCP=ipv4\n' > /etc/systemd/network/20-wired.network
systemctl --quiet enable systemd-networkd.service
echo neuron-vm > /etc/hostname
printf '%s %s\n' "$kernel" "${newer#linux-image-}" > /kernels
