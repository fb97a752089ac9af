# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one validator of text that comes from a managed host, a mirror, an index or a file that people edit.

Each function takes what was received, and returns it where it has the closed form that is wanted, made of nothing but
what was understood; all else raises FormError. A form lists what is allowed, never what is not.
"""

from __future__ import annotations

import re

# Every form is anchored with \Z: $ would let a newline through.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?"
_VERSION = (
    r"[vV]?(?:[0-9]{1,9}!)?[0-9]{1,20}(?:\.[0-9]{1,20}){0,20}"
    r"(?:[-_.]?(?:a|b|c|rc|alpha|beta|pre|preview)[-_.]?[0-9]{0,20})?"
    r"(?:-[0-9]{1,20}|[-_.]?(?:post|rev|r)[-_.]?[0-9]{0,20})?"
    r"(?:[-_.]?dev[-_.]?[0-9]{0,20})?"
    r"(?:\+[a-zA-Z0-9]{1,64}(?:[-_.][a-zA-Z0-9]{1,64}){0,10})?"
)
_TAG = r"[A-Za-z][A-Za-z0-9_]{0,60}(?:\.[A-Za-z][A-Za-z0-9_]{0,60}){0,20}"
_HASH = r"[0-9a-f]{64}"
# PEP 508, without addresses: a requirement with a URL names a file that nobody has checked.
_VARIABLE = (
    r"(?:python_version|python_full_version|os_name|sys_platform|platform_release|platform_system|platform_version"
    r"|platform_machine|platform_python_implementation|implementation_name|implementation_version|extra)"
)
_OPERAND = r"(?:" + _VARIABLE + r"|'[A-Za-z0-9 ._+*/()-]{0,100}'|\"[A-Za-z0-9 ._+*/()-]{0,100}\")"
_COMPARISON = r"(?:===|==|~=|!=|<=|>=|<|>|not +in|in)"
_MARKER_TOKEN = re.compile(
    r" *(?:(?P<operand>" + _OPERAND + r")|(?P<operator>" + _COMPARISON + r")|(?P<word>and\b|or\b)|(?P<bracket>[()])) *"
)
_NUMBERS = r"[vV]?(?:[0-9]{1,9}!)?[0-9]{1,20}(?:\.[0-9]{1,20}){0,20}"
_CLAUSE = (
    r"(?:(?:==|!=) *"
    + _NUMBERS
    + r"\.\*|(?:==|!=) *"
    + _VERSION
    + r"|(?:<=|>=|<|>) *"
    + _VERSION.partition(r"(?:\+")[0]
    + r"|~= *"
    + _NUMBERS.replace("{0,20}", "{1,20}", 1)
    + r")"
)
_REQUIREMENT = re.compile(
    r"(?P<name>" + _NAME + r")"
    r"(?P<extras> *\[ *" + _NAME + r"(?: *, *" + _NAME + r"){0,20} *\])?"
    r" *(?P<versions>\( *"
    + _CLAUSE
    + r"(?: *, *"
    + _CLAUSE
    + r"){0,20} *\)|"
    + _CLAUSE
    + r"(?: *, *"
    + _CLAUSE
    + r"){0,20})?"
    r" *(?:;(?P<marker>.{1,1000}))?\Z"
)
_PACKAGE = re.compile(
    r"(" + _NAME + r")==(" + _VERSION + r")((?: +--hash=sha256:" + _HASH + r"){1,2000})\Z", re.IGNORECASE
)
_WHEEL = re.compile(
    r"(?!.*__.*-)(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._]{0,98}[A-Za-z0-9])?)-(?P<version>"
    + _VERSION.replace("[-_.]", "[_.]").replace("-[0-9]", "_[0-9]")
    + r")(?:-[0-9][A-Za-z0-9_.]{0,40})?-"
    + _TAG
    + "-"
    + _TAG
    + "-"
    + _TAG
    + r"\.whl\Z"
)
_FORMS = {
    "package name": re.compile(_NAME + r"\Z"),
    "version": re.compile(_VERSION + r"\Z"),
    "Python version": re.compile(r"3\.[0-9]{1,2}\Z"),
    "architecture": re.compile(r"(?:x86_64|amd64|aarch64|arm64)\Z"),
    "commit": re.compile(r"[0-9a-f]{40}\Z"),
    "SHA-256": re.compile(_HASH + r"\Z"),
    # One part of a path on the controller: never a separator, a leading dot or a dash.
    "file name": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9+_-]|\.(?!\.)){0,199}\Z"),
    "kernel release": re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,5}[A-Za-z0-9.+~_-]{0,100}\Z"),
    "package version": re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_:^-]{0,127}\Z"),
    "system package": re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,127}\Z"),
    # How folders of installed Python packages are named, older ones than PEP 440 too.
    "installed version": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+!-]{0,126}[A-Za-z0-9])?\Z"),
    "release of Python": re.compile(r"3\.[0-9]{1,3}\.[0-9]{1,4}\Z"),
    "state": re.compile(r"[a-z][a-z-]{0,39}\Z"),
    "hash": re.compile(r"[0-9a-f]{4,128}\Z"),
    "fingerprint": re.compile(r"[0-9A-F]{40}\Z"),
    "date": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z"),
    "time": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z"),
    "PCI address": re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]\Z"),
    "PCI device id": re.compile(r"[0-9a-f]{4}\Z"),
    "instance type": re.compile(r"[a-z0-9][a-z0-9-]{0,31}\.[a-z0-9-]{1,31}\Z"),
    "address of a server": re.compile(r"[A-Za-z0-9:.-]{1,253}\Z"),
    "instance id": re.compile(r"i-[0-9a-f]{8,17}\Z"),
    "git ref": re.compile(r"(?!.*(?:\.\.|//|@\{|\.lock(?:/|\Z)))[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}\Z"),
    # No control characters, none that change the direction or the lines of a text.
    "line of text": re.compile(
        r"[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]{0,4096}\Z"
    ),
}
_FORMS["absolute path"] = re.compile(r"(?!.*/\.\.?(?:/|\Z))/" + _FORMS["line of text"].pattern)
LONGEST_LOCK = 16 << 20  # characters


class FormError(ValueError):
    """What was received does not have its form; the message says what it is, and what should stand there."""


def shortened(value, limit=80):
    """Return a value for a message: as Python writes it, without control characters, and not all of a long one."""
    text = ascii(value)
    return text if len(text) <= limit else text[:limit] + "..."


def form(kind, value, what=None):
    """Return the text `value` where it has the form `kind`; `what` names it in the message."""
    if not isinstance(value, str) or not _FORMS[kind].match(value):
        raise FormError("%s is %s, and that is no %s" % (what or "it", shortened(value), kind))
    # A subclass of str may carry more than its characters, as tagged text of ansible-core does.
    return str(value)


def known(kind, value):
    """Return the text where it has the form, and None where it does not: for what somebody else may set at will."""
    try:
        return form(kind, value)
    except FormError:
        return None


def one_of(value, known, what):
    """Return the value where it is one of the known ones."""
    if not isinstance(value, str) or value not in known:
        raise FormError("%s is %s, and not one of %s" % (what, shortened(value), ", ".join(sorted(known))))
    return next(name for name in known if name == value)


def number(value, what, least=0, most=2**63 - 1):
    """Return a whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise FormError("%s is %s, and should be a whole number from %d to %d" % (what, shortened(value), least, most))
    return int(value)


def truth(value, what):
    """Return true or false."""
    if not isinstance(value, bool):
        raise FormError("%s is %s, and should be true or false" % (what, shortened(value)))
    return bool(value)


def mapping(value, what, most=100000):
    """Return a dictionary whose keys are texts."""
    if not isinstance(value, dict) or len(value) > most or not all(isinstance(key, str) for key in value):
        raise FormError("%s is %s, and should be a dictionary" % (what, shortened(value)))
    return dict(value)


def sequence(value, what, most=100000):
    """Return a list."""
    if not isinstance(value, list) or len(value) > most:
        raise FormError("%s is %s, and should be a list" % (what, shortened(value)))
    return list(value)


def fields(value, wanted, what, optional=()):
    """Return the dictionary where its keys are exactly the wanted ones, of which `optional` may be missing."""
    found = mapping(value, what)
    missing = sorted(set(wanted) - set(found) - set(optional))
    unknown = sorted(set(found) - set(wanted) - set(optional))
    if missing or unknown:
        raise FormError(
            "%s %s"
            % (what, "lacks %s" % ", ".join(missing) if missing else "has the unknown key %s" % shortened(unknown[0]))
        )
    return found


def normalised(name):
    """Return the name of a package as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wheel_name(value, package=None, version=None, what="the wheel"):
    """Return the file name of a wheel; of that package and version where they are given."""
    found = _WHEEL.match(value) if isinstance(value, str) and len(value) <= 250 else None
    if not found:
        raise FormError("%s is named %s, and that is no file name of a wheel" % (what, shortened(value)))
    if package is not None and normalised(found.group("name")) != normalised(package):
        raise FormError("%s is named %s, and should be one of %s" % (what, shortened(value), package))
    if version is not None and found.group("version").replace("_", "-").lower() != version.replace("_", "-").lower():
        raise FormError("%s is named %s, and should have the version %s" % (what, shortened(value), version))
    return str(value)


def requirement(value, what="the requirement"):
    """Return a requirement of PEP 508 on one line, without an address, an option or a comment."""
    found = _REQUIREMENT.match(value) if isinstance(value, str) and len(value) <= 2000 else None
    if not found or (found.group("marker") is not None and not _marker(found.group("marker"))):
        raise FormError(
            "%s is %s, and should be a requirement such as name>=1.0: one line, with no address, option or comment"
            % (what, shortened(value))
        )
    return str(value)


def requirement_name(value):
    """Return the normalised name of a requirement that has been checked."""
    return normalised(_REQUIREMENT.match(value).group("name"))


def pin(value):
    """Return (name, version) of a requirement that asks for one exact version on every platform, or None."""
    found = re.match(r"(" + _NAME + r") *(?:\[[^\]]*\])? *== *(" + _VERSION + r")\Z", value)
    return (normalised(found.group(1)), found.group(2)) if found else None


def _marker(text):
    """Say whether a text is a marker of PEP 508: comparisons joined by `and` and `or`, with brackets."""
    position, depth, expected = 0, 0, "operand"
    operands = 0
    while position < len(text):
        token = _MARKER_TOKEN.match(text, position)
        if not token or token.end() == position:
            return False
        position = token.end()
        if token.group("bracket") == "(":
            if expected != "operand" or operands:
                return False
            depth += 1
        elif token.group("bracket") == ")":
            if expected != "word" or not depth:
                return False
            depth -= 1
        elif token.group("operand"):
            if expected != "operand":
                return False
            operands += 1
            expected = "operator" if operands == 1 else "word"
            operands %= 2
        elif token.group("operator"):
            if expected != "operator":
                return False
            expected = "operand"
        else:
            if expected != "word":
                return False
            expected = "operand"
    return expected == "word" and depth == 0


def lock(text, what="the lock"):
    """Return {normalised name: (version, [hashes])} of a lock.

    A lock is `name==version` with SHA-256 hashes, comments on lines of their own, and nothing else. pip and uv read
    more than that: other indexes, addresses, options, lines that end with other characters than a newline.
    """
    if not isinstance(text, str) or len(text) > LONGEST_LOCK:
        raise FormError("%s is no text, or longer than %d characters" % (what, LONGEST_LOCK))
    packages = {}
    lines = iter(enumerate(text.split("\n"), 1))
    for number_of_line, line in lines:
        if re.search(r"[^\x20-\x7e]", line):
            raise FormError(
                "line %d of %s is %s: it has a character that is not printable ASCII"
                % (number_of_line, what, shortened(line))
            )
        if not line.strip() or (line.startswith("#") and not line.rstrip().endswith("\\")):
            continue
        first, whole = number_of_line, line
        while whole.endswith("\\"):
            number_of_line, line = next(lines, (number_of_line, ""))
            whole = whole[:-1].rstrip(" ") + " " + line.strip(" ")
        found = _PACKAGE.match(whole.rstrip(" ")) if re.match(r"[A-Za-z0-9]", whole) and len(whole) < 1 << 20 else None
        if not found:
            raise FormError(
                "line %d of %s is %s, and should be name==version with --hash=sha256: and 64 hexadecimal digits"
                % (first, what, shortened(whole))
            )
        name = normalised(found.group(1))
        if name in packages:
            raise FormError("line %d of %s names %s a second time" % (first, what, name))
        hashes = sorted({part.rpartition(":")[2].lower() for part in found.group(3).split()})
        packages[name] = (found.group(2), hashes)
    return packages


def lock_text(packages):
    """Return a lock as it is written: of what was understood, and nothing else."""
    lines = []
    for name, (version, hashes) in sorted(packages.items()):
        parts = ["%s==%s" % (name, version)] + ["    --hash=sha256:" + digest for digest in hashes]
        lines.append(" \\\n".join(parts))
    return "".join(line + "\n" for line in lines)
