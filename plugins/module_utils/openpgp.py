# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read OpenPGP public keys (RFC 4880): whose they are and until when they hold.

A fresh host has gpgv for apt but often no gpg, so looking at a key must not need one. Another program reads the bytes
that are installed, and it may find more in them than this reader. So what is handed on is not what was read: it is
written anew, of the key, the names and signing subkeys that it signed, and its signatures on them, each of which was
verified here. Whatever anybody can put beside a key (signatures of others, names, subkeys) is left out; what is no part
of a public key, and what the key signed itself and this reader does not know, refuses all of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import time

_SIGNATURE, _PUBLIC_KEY, _USER_ID, _PUBLIC_SUBKEY, _USER_ATTRIBUTE, _TRUST = 2, 6, 13, 14, 17, 12
_CERTIFICATIONS, _NAME_REVOCATION = (0x10, 0x11, 0x12, 0x13), 0x30
_BINDING, _BACK, _SUBKEY_REVOCATION = 0x18, 0x19, 0x28
_DIRECT_KEY, _KEY_REVOCATION = 0x1F, 0x20
_REVOCATIONS = (_KEY_REVOCATION, _SUBKEY_REVOCATION, _NAME_REVOCATION)
_CREATED, _KEY_EXPIRES, _ISSUER, _NOTATION = 2, 9, 16, 20
_FLAGS, _REASON, _EMBEDDED, _ISSUER_FINGERPRINT = 27, 29, 32, 33
# What a key may say in its signatures, and its shortest and longest form: Sequoia passes over a signature with a part
# in another form, where gpg goes by it. What is in the first list may be marked as what must be understood.
_UNDERSTOOD = {_CREATED: (4, 4), _KEY_EXPIRES: (4, 4), _ISSUER: (8, 8), _ISSUER_FINGERPRINT: (21, 21), _FLAGS: (1, 9)}
_UNDERSTOOD.update({11: (0, 99), 21: (0, 99), 22: (0, 99), 23: (0, 9), 25: (1, 1), 30: (0, 9), _EMBEDDED: (6, 1 << 16)})
_OPTIONAL = {7: (1, 1), 12: (22, 22), 24: (0, 999), 26: (0, 999), 34: (0, 99)}
_OPTIONAL.update({_NOTATION: (8, 1 << 16), _REASON: (1, 999)})
_MAY_SIGN = 0x02
_RSA, _RSA_SIGN, _EDDSA = 1, 3, 22
_ED25519 = binascii.unhexlify("2b06010401da470f01")
# The hashes of signatures, each with what stands before it in a signature of RSA.
_SHA1 = 2
_HASHES = {
    _SHA1: ("sha1", "3021300906052b0e03021a05000414"),
    8: ("sha256", "3031300d060960864801650304020105000420"),
    9: ("sha384", "3041300d060960864801650304020205000430"),
    10: ("sha512", "3051300d060960864801650304020305000440"),
    11: ("sha224", "302d300d06096086480165030402040500041c"),
}
_LONGEST_NAME, _LONGEST_NUMBER = 2048, 16384  # bytes, bits; gpg reads no longer ones


class OpenPGPError(ValueError):
    """What was read is no OpenPGP public key."""


def dearmor(data):
    """Return the binary packets of a key that may be ASCII-armoured."""
    begin, end = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"
    if b"-----BEGIN" not in data or data[:1] >= b"\x80":
        return data
    packets, rest = b"", data.replace(b"\r\n", b"\n").strip()
    while rest:
        if not rest.startswith(begin + b"\n"):
            raise OpenPGPError("it holds something else than the armoured blocks of public keys")
        block, found, rest = rest[len(begin) + 1 :].partition(b"\n" + end)
        if not found:
            raise OpenPGPError("the key is cut off: it has no END line")
        packets += _block(block.split(b"\n"))
        rest = rest.strip()
    return packets


def _block(lines):
    """Return what the lines within an armoured block hold."""
    # Headers such as "Version: ..." end with an empty line; a line that starts with "=" is the checksum.
    headers = next((number for number, line in enumerate(lines) if not line.strip()), -1)
    if any(b": " not in line for line in lines[: max(headers, 0)]):
        raise OpenPGPError("the key is damaged: its armour has a head that is none")
    body = [line.strip() for line in lines[headers + 1 :] if line.strip()]
    checksum = body.pop()[1:] if body and body[-1].startswith(b"=") else None
    try:
        decoded = base64.b64decode(b"".join(body), validate=True)
        if checksum is not None and base64.b64decode(checksum, validate=True) != _crc24(decoded):
            raise OpenPGPError("the key is damaged: its checksum does not match")
    except binascii.Error as error:
        raise OpenPGPError("the key is damaged: {0}".format(error)) from error
    return decoded


def armor(packets):
    """Return binary packets as an ASCII-armoured block, which is what rpm imports."""
    encoded = base64.b64encode(packets).decode()
    lines = [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
    checksum = "=" + base64.b64encode(_crc24(packets)).decode()
    head, tail = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
    return "\n".join([head, ""] + lines + [checksum, tail, ""]).encode()


def public_keys(data):
    """Return the public keys in a keyring or key file, armoured or not.

    Each is a dict: fingerprint (upper case, no spaces), created and expires (seconds since 1970; expires is None when
    the key has no end), revoked, user_ids, subkeys (fingerprints), packets (this key alone, binary, written anew).
    What a file says of one key in several places is taken together.
    Raises OpenPGPError when there is none, or anything that no public key has.
    """
    keys, parts, signatures = {}, {}, []
    for tag, body, _whole in _packets(dearmor(data)):
        if tag == _PUBLIC_KEY:
            parts = keys.setdefault(body, {})
        elif not keys:
            raise OpenPGPError("it does not start with a public key")
        if tag in (_PUBLIC_KEY, _USER_ID, _USER_ATTRIBUTE, _PUBLIC_SUBKEY):
            signatures = parts.setdefault((tag, body), [])
        elif tag == _SIGNATURE:
            signatures.append(body)
        else:
            raise OpenPGPError("it holds a packet of the kind {0}, which no public key has".format(tag))
    if not keys:
        raise OpenPGPError("there is no public key in it")
    return [_understood(_key(body), parts) for body, parts in keys.items()]


def without(data, fingerprint):
    """Return the packets of a keyring of others without one key, each of the rest as it was; None where it has no such.

    Such a keyring may hold what is not read here, such as the trust that gpg notes beside each packet.
    """
    packets, kept, ours = dearmor(data), b"", False
    for tag, body, whole in _packets(packets):
        if tag == _PUBLIC_KEY:
            ours = hashlib.sha1(_hashed(body)).hexdigest().upper() == fingerprint  # noqa: S324 - as in _key()
        elif tag not in (_SIGNATURE, _USER_ID, _USER_ATTRIBUTE, _PUBLIC_SUBKEY, _TRUST):
            ours = False
        kept += b"" if ours else whole
    return None if kept == packets else kept


def _understood(key, parts):
    """Return what public_keys() tells of a key, by what it signed itself."""
    # A revocation counts wherever it stands; some programs append it.
    everything = [signature for signatures in parts.values() for signature in signatures]
    found = {(_PUBLIC_KEY, key["body"]): _own(everything, key, key["hashed"], (_DIRECT_KEY, _KEY_REVOCATION))}
    for (tag, body), signatures in parts.items():
        if tag == _USER_ID and len(body) <= _LONGEST_NAME:
            name = key["hashed"] + b"\xb4" + struct.pack(">I", len(body)) + body
            found[tag, body] = _own(signatures, key, name, _CERTIFICATIONS + (_NAME_REVOCATION,))
        elif tag == _PUBLIC_SUBKEY:
            what = key["hashed"] + _hashed(body)
            found[tag, body] = _own(signatures, key, what, (_BINDING, _SUBKEY_REVOCATION), body)
    # Sequoia passes over what is signed with SHA-1, and gpg does not: it counts where the key has nothing else.
    if any(one["modern"] for signatures in found.values() for one in signatures if one["kind"] not in _REVOCATIONS):
        found = {
            part: [one for one in signatures if one["modern"] or one["kind"] in _REVOCATIONS]
            for part, signatures in found.items()
        }
    own = found.pop((_PUBLIC_KEY, key["body"]))
    direct = _newest([one for one in own if one["kind"] == _DIRECT_KEY])
    names, subkeys, lifetimes = [], [], set()
    written = {_USER_ID: _written(_PUBLIC_KEY, key["body"], own), _PUBLIC_SUBKEY: b""}
    for (tag, body), signatures in found.items():
        newest = _newest(signatures)
        if tag == _USER_ID and newest and not any(one["kind"] == _NAME_REVOCATION for one in newest):
            names.append(body.decode("utf-8", "replace"))
            lifetimes.update(one["lifetime"] or 0 for one in newest)
            written[tag] += _written(tag, body, [one for one in signatures if one["kind"] != _NAME_REVOCATION])
        newest = _newest([one for one in signatures if one["kind"] == _BINDING])
        if newest and all(one["may_sign"] for one in newest):
            subkeys.append(_key(body)["fingerprint"])
            written[tag] += _written(tag, body, signatures)
    if not names:
        raise OpenPGPError("it has no name that the key itself signed")
    # gpg asks the newest signature on the key itself first, Sequoia those on its names; each takes another name first.
    lifetimes.update(one["lifetime"] for one in direct if one["lifetime"] is not None)
    if len(lifetimes) > 1:
        raise OpenPGPError("it says different things of when it ends, which others may read in another way")
    lifetime = lifetimes.pop()
    if key["created"] + lifetime > 0xFFFFFFFF:
        raise OpenPGPError("it ends after the last second that gpg can count")
    return {
        "fingerprint": key["fingerprint"],
        "created": key["created"],
        "expires": key["created"] + lifetime if lifetime else None,
        "revoked": any(one["kind"] == _KEY_REVOCATION for one in own),
        "user_ids": names,
        "subkeys": subkeys,
        "packets": written[_USER_ID] + written[_PUBLIC_SUBKEY],
    }


def _newest(signatures):
    """Return the newest signatures: several of one second are all of them, as nobody can tell which is meant."""
    latest = max([one["signed"] for one in signatures] or [0])
    return [one for one in signatures if one["signed"] == latest]


def _written(tag, body, signatures):
    return _packet(tag, body) + b"".join(_packet(_SIGNATURE, one["body"]) for one in signatures)


def _packet(tag, body):
    """Return a packet as gpg writes it: of the older format, with the shortest length."""
    size = 0 if len(body) < 1 << 8 else 1 if len(body) < 1 << 16 else 2
    return bytes([0x80 | tag << 2 | size]) + len(body).to_bytes(1 << size, "big") + body


def _own(bodies, key, what, kinds, subkey=None):
    """Return what each of a key's own signatures of these kinds on `what` says, verified and written anew."""
    own = []
    for body in bodies:
        if len(body) < 6 or body[0] not in (3, 4):
            raise OpenPGPError("only signatures of version 4 can be read")
        if body[0] == 3:
            if body[7:15] == key["id"]:
                raise OpenPGPError("the key has signed in the form of version 3, which is not read here")
            continue
        if body[1] not in kinds:
            continue
        one = _signature(body, key, what, subkey)
        if one and one["body"] not in [other["body"] for other in own]:
            own.append(one)
    return own


def _signature(body, key, what, subkey=None):
    """Return what a signature says, written anew; None where the key did not make it or it is not on `what`."""
    reader = _Reader(body[4:], "a signature")
    hashed, unhashed = reader.take(reader.number(2)), reader.take(reader.number(2))
    start, numbers = reader.take(2), reader.take(len(reader.data) - reader.position)
    parts, unsigned = _subpackets(hashed), _subpackets(unhashed)
    makers = [content for kind, _must, content in parts + unsigned if kind in (_ISSUER, _ISSUER_FINGERPRINT)]
    if not makers or any(maker[-8:] != key["id"] for maker in makers):
        return None
    if body[2] != key["algorithm"] or body[3] not in _HASHES:
        raise OpenPGPError("the key has signed with an algorithm or a hash that is not known here")
    trailer = body[: 6 + len(hashed)]
    digest = hashlib.new(_HASHES[body[3]][0], what + trailer + b"\x04\xff" + struct.pack(">I", len(trailer))).digest()
    if digest[:2] != start or not _verified(key, numbers, body[3], digest):
        return None
    said = {}
    for kind, must, content in parts:
        shortest, longest = _UNDERSTOOD.get(kind) or (not must and _OPTIONAL.get(kind)) or (1, 0)
        if kind == _NOTATION and len(content) >= 8:
            shortest = longest = 8 + sum(struct.unpack(">HH", content[4:8]))
        if not shortest <= len(content) <= longest or (kind == _EMBEDDED and body[1] != _BINDING):
            raise OpenPGPError("the key has signed under a condition or in a form that is not known here")
        if kind in said and kind != _NOTATION:
            raise OpenPGPError("the key has signed something twice")
        said[kind] = content
    signed = int.from_bytes(said.get(_CREATED, b""), "big")
    if signed < key["created"]:
        raise OpenPGPError("the key has signed without a date, or before it was made")
    if signed > time.time():
        raise OpenPGPError("the key has signed in the future; is the clock of this host right?")
    # Nobody signed these: only who signed is of use, and for a subkey its own signature.
    kept = bytes([9, _ISSUER]) + key["id"]
    may_sign = bool(int.from_bytes(said.get(_FLAGS, b"")[:1], "big") & _MAY_SIGN)
    if subkey and body[1] == _BINDING and may_sign:
        back = [content for kind, _must, content in parts + unsigned if kind == _EMBEDDED]
        signs = _own(back, _key(subkey), what, (_BACK,)) if len(back) == 1 else []
        if not signs:
            return None
        if _EMBEDDED not in said:
            kept += _subpacket(_EMBEDDED, signs[0]["body"])
    lifetime = said.get(_KEY_EXPIRES)
    return {
        "kind": body[1],
        "signed": signed,
        "lifetime": None if lifetime is None else int.from_bytes(lifetime, "big"),
        "may_sign": may_sign,
        "modern": body[3] != _SHA1,
        "body": trailer + struct.pack(">H", len(kept)) + kept + start + numbers,
    }


def _key(body):
    """Return what is known of a key whose body is whole to its last byte."""
    reader = _Reader(body, "a key")
    if reader.number(1) != 4:
        raise OpenPGPError("only keys of version 4 can be read")
    created, algorithm = reader.number(4), reader.number(1)
    if algorithm in (_RSA, _RSA_SIGN):
        material = [reader.mpi(), reader.mpi()]
    elif algorithm == _EDDSA:
        if reader.take(reader.number(1)) != _ED25519:
            raise OpenPGPError("the key is on a curve that is not known here")
        material = [reader.mpi()]
    else:
        raise OpenPGPError("the key is of the algorithm {0}: only RSA and Ed25519 are known here".format(algorithm))
    reader.finish()
    fingerprint = hashlib.sha1(_hashed(body)).digest()  # noqa: S324 - RFC 4880 defines it so
    return {
        "body": body,
        "hashed": _hashed(body),
        "fingerprint": binascii.hexlify(fingerprint).decode().upper(),
        "id": fingerprint[-8:],
        "created": created,
        "algorithm": algorithm,
        "material": material,
    }


def _hashed(body):
    """Return a key as it is hashed."""
    if len(body) > 0xFFFF:
        raise OpenPGPError("it holds a key that is too long")
    return b"\x99" + struct.pack(">H", len(body)) + body


def _verified(key, numbers, name, digest):
    """Say whether a key made a signature with this digest."""
    reader = _Reader(numbers, "a signature")
    values = [reader.mpi() for _number in range(2 if key["algorithm"] == _EDDSA else 1)]
    reader.finish()
    return _eddsa(key["material"][0], values, digest) if len(values) == 2 else _rsa(key, values[0], name, digest)


def _rsa(key, number, name, digest):
    """Verify a signature of PKCS #1, version 1.5 (RFC 8017)."""
    modulus, exponent = key["material"]
    content = binascii.unhexlify(_HASHES[name][1]) + digest
    if modulus.bit_length() < 1024 or not 2 < exponent < 1 << 64 or number >= modulus:
        return False
    padding = b"\xff" * ((modulus.bit_length() + 7) // 8 - len(content) - 3)
    return pow(number, exponent, modulus) == int.from_bytes(b"\x00\x01" + padding + b"\x00" + content, "big")


def _eddsa(public, numbers, digest):
    """Verify a signature of Ed25519 (RFC 8032)."""
    prime, order = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
    d = -121665 * pow(121666, prime - 2, prime) % prime
    # 0x40 says that the point follows as RFC 8032 writes it.
    if public >> 256 != 0x40 or max(numbers).bit_length() > 256:
        return False
    public = (public & ((1 << 256) - 1)).to_bytes(32, "big")
    r, s = (number.to_bytes(32, "big") for number in numbers)

    def point(encoded):
        y, sign = int.from_bytes(encoded, "little") & ((1 << 255) - 1), encoded[31] >> 7
        if y >= prime:
            return None
        square = (y * y - 1) * pow(d * y * y + 1, prime - 2, prime) % prime
        x = pow(square, (prime + 3) // 8, prime)
        if (x * x - square) % prime:
            x = x * pow(2, (prime - 1) // 4, prime) % prime
        if (x * x - square) % prime or (not x and sign):
            return None
        return (prime - x if x & 1 != sign else x), y, 1

    def add(one, other):
        # Projective coordinates, of the twisted Edwards curve with a = -1.
        a = one[2] * other[2] % prime
        b, c, e = a * a % prime, one[0] * other[0] % prime, one[1] * other[1] % prime
        f = d * c * e % prime
        x = a * (b - f) * ((one[0] + one[1]) * (other[0] + other[1]) - c - e) % prime
        return x, a * (b + f) * (e + c) % prime, (b - f) * (b + f) % prime

    def times(factor, point):
        total = (0, 1, 1)
        while factor:
            total = add(total, point) if factor & 1 else total
            point, factor = add(point, point), factor >> 1
        return total

    base = point(((4 * pow(5, prime - 2, prime)) % prime).to_bytes(32, "little"))
    key, commitment, factor = point(public), point(r), int.from_bytes(s, "little")
    if key is None or commitment is None or factor >= order:
        return False
    challenge = int.from_bytes(hashlib.sha512(r + public + digest).digest(), "little") % order
    left = times(factor, base)
    right = add(commitment, times(challenge, key))
    return all((left[axis] * right[2] - right[axis] * left[2]) % prime == 0 for axis in (0, 1))


class _Reader:
    """Bytes that are taken one after the other; what is missing is an OpenPGPError."""

    def __init__(self, data, what):
        self.data, self.what, self.position = data, what, 0

    def take(self, size):
        end = self.position + size
        if end > len(self.data):
            raise OpenPGPError("{0} is damaged or cut off".format(self.what))
        taken, self.position = self.data[self.position : end], end
        return taken

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def mpi(self):
        """Take a number that says how many bits it has, and has them."""
        bits = self.number(2)
        value = self.number((bits + 7) // 8)
        if not 0 < bits <= _LONGEST_NUMBER or value.bit_length() != bits:
            raise OpenPGPError("{0} has a number that is too long or not of its length".format(self.what))
        return value

    def more(self):
        return self.position < len(self.data)

    def finish(self):
        if self.more():
            raise OpenPGPError("{0} does not end where its numbers do".format(self.what))


def _packets(data):
    """Yield (tag, body, whole packet) for each packet."""
    reader = _Reader(data, "it")
    while reader.more():
        start, first = reader.position, reader.number(1)
        if not first & 0x80:
            raise OpenPGPError("it is not in OpenPGP format")
        if first & 0x40:
            tag, length = first & 0x3F, _length(reader, 224)
        elif first & 0x03 == 3:
            raise OpenPGPError("it has a packet without a length, which keys have not")
        else:
            tag, length = (first >> 2) & 0x0F, reader.number(1 << (first & 0x03))
        yield tag, reader.take(length), data[start : reader.position]


def _subpackets(data):
    """Return [(kind, whether it must be understood, content)] of a part of a signature."""
    found, reader = [], _Reader(data, "a signature")
    while reader.more():
        content = reader.take(_length(reader, 255))
        if not content:
            raise OpenPGPError("a signature is damaged: a part of it is empty")
        found.append((content[0] & 0x7F, bool(content[0] & 0x80), content[1:]))
    return found


def _subpacket(kind, content):
    length = len(content) + 1
    return (bytes([length]) if length < 192 else b"\xff" + struct.pack(">I", length)) + bytes([kind]) + content


def _length(reader, partial):
    """Take a length; of a packet, a first byte from 224 on is that of a part."""
    first = reader.number(1)
    if first < 192:
        return first
    if first == 255:
        return reader.number(4)
    if first >= partial:
        raise OpenPGPError("it uses partial packets, which keys do not")
    return ((first - 192) << 8) + reader.number(1) + 192


def _crc24(data):
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _bit in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return struct.pack(">I", crc & 0xFFFFFF)[1:]
