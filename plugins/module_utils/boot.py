# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read which kernel the boot loader is set to start next. What cannot be told for certain is None."""

from __future__ import annotations

import glob
import os
import re
import shlex

_FOLDERS = ("boot/grub", "boot/grub2")
_KERNEL = re.compile(r"linux(?:16|efi)?\s+\S*?vmlinuz-(\S+)")
# update-grub writes these for titles from before there were menus within the menu.
_CORRECTION = re.compile(r"""if \[ "x\$default" = '([^']*)' \]; then default='([^']*)'; fi;""")


class _UnclearError(ValueError):
    """A file that decides is not in the form that its programs write."""


def next_kernel(run, images, root="/"):
    """Return the release of the kernel that the next boot brings up, or None where that is not known.

    images: releases of the installed kernels, the newest last.
    """
    try:
        release = _of_grub(run, images, root)
    except ValueError:
        return None
    return release if release in images else None


def is_configured(root="/"):
    """Say whether the system has a boot loader that this file reads."""
    files = [folder + "/grub.cfg" for folder in _FOLDERS] + ["etc/default/grub"]
    return any(os.path.exists(os.path.join(root, file)) for file in files)


def _of_grub(run, images, root):
    folder = next((path for path in _FOLDERS if os.path.exists(os.path.join(root, path, "grub.cfg"))), None)
    saved = {name: value for path in ([folder] if folder else _FOLDERS) for name, value in _saved(root, path).items()}
    menu = _text(root, folder, "grub.cfg") if folder else None
    if menu is None and not os.path.isdir(os.path.join(root, "boot/loader/entries")) and is_configured(root):
        return _of_settings(images, saved, root)
    if menu is None or re.search(r"(?m)^\s*blscfg\b", menu):
        return _of_entry_files(run, images, saved, root)
    return _chosen(_entries(menu), _default(menu, saved))


def _text(root, *path):
    try:
        with open(os.path.join(root, *path), encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError as error:
        raise _UnclearError(str(error)) from error


def _saved(root, folder):
    """Return GRUB's own variables: saved_entry by grub-set-default, next_entry by grub-reboot for a single boot."""
    path = os.path.join(root, folder, "grubenv")
    text = _text(path) if os.path.exists(path) else ""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def _default(menu, saved):
    """Return what a menu names as the entry to boot."""
    if saved.get("next_entry"):
        return saved["next_entry"]
    named = set(re.findall(r'(?m)^\s*set default="?([^"\n]*)"?\s*$', menu)) - {"${next_entry}"}
    if len(named) != 1:
        raise _UnclearError("there is no one default")
    default = named.pop()
    if default == "${saved_entry}":
        default = saved.get("saved_entry", "")
    if "$" in default:
        raise _UnclearError("the default is computed")
    return dict(_CORRECTION.findall(menu)).get(default, default)


def _entries(menu):
    """Return the entries of a menu: each with its title, its id, its kernel and, for a menu within it, its entries."""
    top = {"entries": []}
    open_blocks = [top]
    for line in (line.strip() for line in menu.splitlines()):
        kernel = _KERNEL.match(line)
        if re.match(r"(menuentry|submenu)\s.*\{$", line):
            words = shlex.split(line)
            names = [words[1]] + [
                after for word, after in zip(words, words[1:]) if word in ("$menuentry_id_option", "--id")
            ]
            block = {"names": names, "kernel": None, "entries": [] if words[0] == "submenu" else None}
            inside = open_blocks[-1].get("entries")
            if inside is None:
                raise _UnclearError("an entry stands within an entry")
            inside.append(block)
            open_blocks.append(block)
        elif re.match(r"(menuentry|submenu)\s", line):
            raise _UnclearError("an entry is not on one line")
        elif re.match(r"function\s.*\{$", line):
            open_blocks.append({})
        elif line == "}":
            open_blocks.pop()
            if not open_blocks:
                raise _UnclearError("a bracket closes nothing")
        elif kernel and "names" in open_blocks[-1]:
            open_blocks[-1]["kernel"] = kernel.group(1)
    if len(open_blocks) != 1 or not top["entries"]:
        raise _UnclearError("the menu is not whole")
    return top["entries"]


def _chosen(entries, default):
    """Return the kernel of the entry that GRUB takes by number, title or id; the first one where there is none."""
    for name in re.split(r"(?<!>)>(?!>)", default):
        if entries is None:
            raise _UnclearError("the default is within an entry that is no menu")
        name = name.replace(">>", ">")
        found = [number for number, entry in enumerate(entries) if name in entry["names"]]
        if not entries:
            raise _UnclearError("a menu is empty")
        number = int(name) if re.match(r"[0-9]{1,9}$", name) else (found or [0])[0]
        entry = entries[number] if number < len(entries) else entries[0]
        entries = entry["entries"]
    return entry["kernel"]


def _of_settings(images, saved, root):
    """Return what the settings say that update-grub makes the menu from: no menu is there yet."""
    files = [os.path.join(root, "etc/default/grub"), *sorted(glob.glob(os.path.join(root, "etc/default/grub.d/*.cfg")))]
    said = "\n".join(_text(file) for file in files)
    settings = dict(re.findall(r"(?m)^\s*(?:export\s+)?(GRUB_[A-Z_]+)=(.*)$", said))
    default = _word(settings.get("GRUB_DEFAULT", "0"))
    if default == "saved":
        default = saved.get("saved_entry", "")
    default = saved.get("next_entry") or default
    if default == "0" and not {"GRUB_TOP_LEVEL", "GRUB_FLAVOUR_ORDER"} & set(settings):
        return images[-1] if images else None  # update-grub puts the newest first
    return _named(images, default)


def _word(value):
    words = shlex.split(value, comments=True)
    if re.search(r"[$`]", value) or len(words) > 1:
        raise _UnclearError("the default is computed")
    return words[0] if words else "0"


def _named(images, text):
    """Return the release in a title or an id, such as "Ubuntu, with Linux RELEASE"."""
    named = [
        image
        for image in images
        if re.search(r"(?:^|[ -])" + re.escape(image) + r"(?:$| |-(?:advanced|recovery|init))", text)
    ]
    return max(named, key=len) if named else None


def _of_entry_files(run, images, saved, root):
    """Return the kernel on a system whose entries are files, which grubby knows; it does not look at next_entry."""
    if saved.get("next_entry"):
        return _named(images, saved["next_entry"]) or _of_entry_file(saved["next_entry"], root)
    status, output, _error = run(["grubby", "--default-kernel"])
    if status != 127:
        found = re.match(r"\S*/vmlinuz-(\S+)\s*$", output)
        return found.group(1) if status == 0 and found else None
    return _of_entry_file(saved.get("saved_entry", ""), root)


def _of_entry_file(name, root):
    if not re.match(r"[A-Za-z0-9._+~-]+$", name):
        return None
    found = _KERNEL.search(_text(root, "boot/loader/entries", name + ".conf"))
    return found.group(1) if found else None
