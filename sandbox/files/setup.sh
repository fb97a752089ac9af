#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs inside the new root file system, when debootstrap is done: what makes it a cloud image.
# The packages to put into apt's cache, without installing them, are the arguments.
set -eu
export DEBIAN_FRONTEND=noninteractive
tools=/usr/lib/neuronops-sandbox

# apt then finds these on the disk when a role asks for them; like a cloud image, this one has no package lists.
apt-get -qq clean
apt-get -qq update
apt-get -qq -y install --download-only "$@"
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin

# The kernel is shared with the machine, so these cannot do their work in a container.
dpkg -L kmod | grep -E '/s?bin/(modprobe|insmod|rmmod|lsmod)$' | while read -r program; do
  dpkg-divert --quiet --local --rename --divert "$program.real" --add "$program"
  ln -s "$tools/kernel-module" "$program"
done
systemctl --quiet enable neuronops-modules.service neuronops-host-keys.service
# They would take apt's lock at a moment of their own choice.
systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer

# A stand-in for an instance is thrown away: no need to wait for the disk after each file.
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/sandbox

useradd --create-home --shell /bin/bash ubuntu
install -d -m 0700 -o ubuntu -g ubuntu /home/ubuntu/.ssh
echo 'ubuntu ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/90-cloud-init-users
# A private certificate authority or proxy of the machine must reach what sudo starts, too.
echo 'Defaults env_keep += "SSL_CERT_FILE REQUESTS_CA_BUNDLE PIP_CERT CURL_CA_BUNDLE PIP_INDEX_URL UV_INDEX_URL UV_DEFAULT_INDEX"' \
  > /etc/sudoers.d/80-sandbox
echo 'Defaults env_keep += "http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY"' >> /etc/sudoers.d/80-sandbox
chmod 0440 /etc/sudoers.d/*
mkdir -p /etc/ssh/sshd_config.d
printf 'PasswordAuthentication no\nPermitRootLogin prohibit-password\n' > /etc/ssh/sshd_config.d/50-cloud-image.conf
# Each host makes its own.
rm -f /etc/ssh/ssh_host_*
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id /var/log/*.log
