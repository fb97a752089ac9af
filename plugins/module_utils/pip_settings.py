# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read pip's configuration as pip does, and say what of it decides where packages come from."""

from __future__ import annotations

import configparser
import os
import sys

# What is handed on: where packages come from, and how they are reached. Everything else in a pip.conf says how and
# where pip installs, which is for our own command to say.
HANDED_ON = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "proxy",
    "cert",
    "client-cert",
    "timeout",
    "retries",
    "keyring-provider",
)
# Other names that pip has for an option.
ALIASES = {"pypi-url": "index-url", "default-timeout": "timeout"}
TRUE, FALSE = ("y", "yes", "t", "true", "on", "1"), ("n", "no", "f", "false", "off", "0")
LARGEST = 1 << 20  # bytes


class SettingsError(ValueError):
    """A pip.conf that pip itself cannot read, or that uv has no equivalent of; the message says what to do."""


def option_name(key):
    """Return the name of an option: pip takes underscores, capitals and two leading dashes too."""
    name = key.lower().replace("_", "-")
    if name.startswith("--"):
        name = name[2:]
    return ALIASES.get(name, name)


def parsed(text, path):
    """Return {section: {key: value}} of the text of a pip.conf, as pip reads it; raises SettingsError."""
    if text.startswith("\ufeff"):
        raise SettingsError("%s begins with a byte order mark, and pip reads nothing of it. Remove the mark." % path)
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text, path)
        return {section: dict(parser.items(section)) for section in parser.sections()}
    except (configparser.Error, ValueError, AttributeError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SettingsError("%s is no file that pip can read: %s. Mend or remove it." % (path, reason)) from error


def read(path):
    """Return {section: {key: value}} of a pip.conf; nothing where there is none."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError("%s cannot be read: %s" % (path, error)) from error
    if len(content) > LARGEST:
        raise SettingsError("%s is larger than %d bytes, and that is no pip.conf." % (path, LARGEST))
    try:
        # As Python opens text files: any end of line counts.
        text = content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise SettingsError("%s is not written in UTF-8, and pip cannot read it: %s" % (path, error)) from error
    return parsed(text, path)


def files(variables):
    """Return the files that pip reads, the strongest last."""
    home = variables.get("HOME") or os.path.expanduser("~")
    named = variables.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    folders = (variables.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    found = [os.path.join(folder, "pip", "pip.conf") for folder in folders if folder] + ["/etc/pip.conf"]
    if not (named and os.path.exists(named)):
        own = variables.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        found += [os.path.join(home, ".pip", "pip.conf"), os.path.join(own, "pip", "pip.conf")]
    found.append(os.path.join(sys.prefix, "pip.conf"))
    return found + ([named] if named else [])


def effective(sections):
    """Return {option: value} that `pip install` would use of the sections of one or more files, merged."""
    found = {}
    for section in ("global", "install"):
        for key, value in sections.get(section, {}).items():
            if value is not None and value != "":
                found[option_name(key)] = value
    return found


def settings(variables):
    """Return {option: value} of the host's pip that decides where packages come from; raises SettingsError."""
    merged = {}
    for path in files(variables):
        for section, options in read(path).items():
            there = merged.setdefault(section, {})
            for key, value in options.items():
                # The other spelling of the same option does not stay beside it.
                for old in [old for old in there if option_name(old) == option_name(key)]:
                    del there[old]
                there[key] = value
    found = {name: value for name, value in effective(merged).items() if name in HANDED_ON}
    for name in HANDED_ON:
        variable = "PIP_" + name.upper().replace("-", "_")
        value = variables.get(variable) or (variables.get("PIP_DEFAULT_TIMEOUT") if name == "timeout" else None)
        if value:
            found[name] = value
    return found


def truth(name, value):
    """Return what pip takes a value for."""
    if value.lower() not in TRUE + FALSE:
        raise SettingsError(
            "pip's configuration says %s = %s, and that is neither true nor false." % (name, ascii(value))
        )
    return value.lower() in TRUE


def for_programs(found):
    """Return the environment variables that tell pip and uv the same; raises SettingsError where uv cannot be told."""
    variables = {}
    for name, value in found.items():
        words = value.split()
        if name == "index-url":
            variables.update(PIP_INDEX_URL=value.strip(), UV_DEFAULT_INDEX=value.strip())
        elif name == "extra-index-url":
            variables.update(PIP_EXTRA_INDEX_URL=" ".join(words), UV_INDEX=" ".join(words))
        elif name == "find-links":
            if any("," in word for word in words):
                raise SettingsError(
                    "pip's configuration has find-links with a comma in it, which uv cannot be told. Name the place "
                    "with the role's option *_wheelhouse, or the index with *_index_url."
                )
            places = [word if "://" in word else os.path.abspath(os.path.expanduser(word)) for word in words]
            variables.update(PIP_FIND_LINKS=" ".join(places), UV_FIND_LINKS=",".join(places))
        elif name == "no-index":
            if truth(name, value):
                variables.update(PIP_NO_INDEX="1", UV_NO_INDEX="1")
        elif name == "trusted-host":
            variables.update(PIP_TRUSTED_HOST=" ".join(words), UV_INSECURE_HOST=" ".join(words))
        elif name == "proxy":
            variables.update(PIP_PROXY=value.strip())
            variables.update({key: value.strip() for key in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")})
        elif name == "cert":
            variables.update(PIP_CERT=value.strip())
        elif name == "client-cert":
            variables.update(PIP_CLIENT_CERT=value.strip(), SSL_CLIENT_CERT=value.strip())
        elif name == "timeout":
            seconds = value.strip().partition(".")[0]
            variables.update(PIP_DEFAULT_TIMEOUT=value.strip(), UV_HTTP_TIMEOUT=seconds if seconds.isdigit() else "30")
        elif name == "retries":
            variables.update(PIP_RETRIES=value.strip(), UV_HTTP_RETRIES=value.strip())
        elif name == "keyring-provider":
            if value.strip() == "import":
                raise SettingsError(
                    "pip's configuration has keyring-provider = import, which uv cannot do. Use subprocess, or "
                    "/root/.netrc, and name the index with the role's option *_index_url."
                )
            variables["PIP_KEYRING_PROVIDER"] = value.strip()
            if value.strip() == "subprocess":
                variables["UV_KEYRING_PROVIDER"] = "subprocess"
    return variables


def uv_settings(variables):
    """Return the environment variables that say the same as the uv.toml of the system and of the user.

    Of each file the indexes count, and nothing that says how and where uv installs.
    """
    home = variables.get("HOME") or os.path.expanduser("~")
    own = variables.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    folders = (variables.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    system = [os.path.join(folder, "uv", "uv.toml") for folder in folders if folder] + ["/etc/uv/uv.toml"]
    found = {}
    for path in [next((path for path in system if os.path.exists(path)), ""), os.path.join(own, "uv", "uv.toml")]:
        if path and os.path.exists(path):
            found.update(uv_file(path))
    return found


def uv_file(path):
    """Return the environment variables that say the same as a uv.toml does on where packages come from."""
    advice = "Name the index with the role's option *_index_url."
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("%s cannot be read: %s" % (path, error)) from error
    if not [line for line in text.split("\n") if line.strip() and not line.strip().startswith("#")]:
        return {}
    try:
        import tomllib  # Python 3.11 and later
    except ImportError as error:
        raise SettingsError(
            "%s configures uv, and this Python cannot read it. %s It wins, once the file is out of the way."
            % (path, advice)
        ) from error
    try:
        options = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError("%s is no TOML: %s" % (path, " ".join(str(error).split())[:200])) from error
    pip = options.pop("pip", {})
    options = dict(pip if isinstance(pip, dict) else {}, **options)
    variables, others = {}, []
    indexes = options.get("index", [])
    if not isinstance(indexes, list):
        raise SettingsError("%s has an index that is no list. %s" % (path, advice))
    for index in indexes:
        if (
            not isinstance(index, dict)
            or not isinstance(index.get("url"), str)
            or index.get("format", "simple") != "simple"
        ):
            raise SettingsError("%s has an index that cannot be handed on. %s" % (path, advice))
        if index.get("explicit"):
            continue  # for packages that a project names, and ours does not
        if index.get("default"):
            variables["UV_DEFAULT_INDEX"] = index["url"]
        else:
            others.append(index["url"])
    if isinstance(options.get("index-url"), str):
        variables["UV_DEFAULT_INDEX"] = options["index-url"]
    others += texts(options, "extra-index-url", path)
    if others:
        variables["UV_INDEX"] = " ".join(others)
    links, hosts = texts(options, "find-links", path), texts(options, "allow-insecure-host", path)
    if links:
        variables["UV_FIND_LINKS"] = ",".join(links)
    if hosts:
        variables["UV_INSECURE_HOST"] = " ".join(hosts)
    if options.get("no-index") is True:
        variables["UV_NO_INDEX"] = "1"
    if options.get("keyring-provider") in ("subprocess", "disabled"):
        variables["UV_KEYRING_PROVIDER"] = options["keyring-provider"]
    return variables


def texts(options, name, path):
    """Return an option of uv.toml that is a list of texts."""
    values = options.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise SettingsError("%s has a %s that is no list of texts." % (path, name))
    return values
