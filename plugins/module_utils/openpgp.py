# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read OpenPGP public keys (RFC 4880): whose they are and until when they hold.

A fresh host has gpgv for apt but often no gpg, so looking at a key must not need one. Nothing here judges a signature:
apt and dnf do that, with the key whose fingerprint was compared here. So that they cannot find another key in the same
bytes, only what is listed here is read: the packets of a transferable public key, in their order and whole to the last
byte. Anything else refuses all of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct

_PUBLIC_KEY, _SIGNATURE, _USER_ID, _PUBLIC_SUBKEY, _USER_ATTRIBUTE = 6, 2, 13, 14, 17
# How many numbers (MPIs) a key and a signature of each algorithm have; those on curves name the curve first.
_KEY_NUMBERS = {1: 2, 2: 2, 3: 2, 16: 3, 17: 4}
_CURVES = {18: 1, 19: 1, 22: 1}
_SIGNATURE_NUMBERS = {1: 1, 3: 1, 17: 2, 19: 2, 22: 2}
_ECDH = 18
_CERTIFICATIONS, _DIRECT_KEY, _KEY_REVOCATION = (0x10, 0x11, 0x12, 0x13), 0x1F, 0x20
_CREATED, _KEY_EXPIRES, _ISSUER, _ISSUER_FINGERPRINT = 2, 9, 16, 33


class OpenPGPError(ValueError):
    """What was read is no OpenPGP public key."""


def dearmor(data):
    """Return the binary packets of a key that may be ASCII-armoured."""
    begin, end = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"
    if b"-----BEGIN" not in data:
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
    the key has no end), revoked, user_ids, packets (the bytes of this key alone, binary).
    Raises OpenPGPError when there is none.
    """
    keys = []
    for tag, body, raw in _packets(dearmor(data)):
        if tag == _PUBLIC_KEY:
            keys.append(_key(body))
            keys[-1]["_of"] = None
        elif not keys:
            raise OpenPGPError("it does not start with a public key")
        key = keys[-1]
        key["packets"] += raw
        if tag == _SIGNATURE:
            _check_signature(body)
            if key["_of"] != "subkey":
                _apply_signature(key, body)
        elif tag == _PUBLIC_SUBKEY:
            _check_key(body)
            key["_of"] = "subkey"
        elif tag in (_USER_ID, _USER_ATTRIBUTE):
            if key["_of"] == "subkey":
                raise OpenPGPError("it names a user behind a subkey, where there can be none")
            key["_of"] = "user"
            if tag == _USER_ID:
                key["user_ids"].append(body.decode("utf-8", "replace"))
        elif tag != _PUBLIC_KEY:
            raise OpenPGPError("it holds a packet of the kind {0}, which no public key has".format(tag))
    if not keys:
        raise OpenPGPError("there is no public key in it")
    for key in keys:
        expiries = [expires for _signed, expires in (key["_direct"], key["_certified"]) if expires]
        key["expires"] = expiries[0] if expiries else None
        del key["_of"], key["_direct"], key["_certified"]
    return keys


def _check_key(body):
    """Refuse a key that is not of version 4, of a known algorithm, and whole to its last byte."""
    if len(body) < 6 or body[0:1] != b"\x04":
        raise OpenPGPError("only keys of version 4 can be read")
    algorithm, position = body[5], 6
    if algorithm in _CURVES:
        if len(body) < 8 or not 0 < body[6] < 0xFF:
            raise OpenPGPError("the key is damaged: it names no curve")
        position += 1 + body[6]
    elif algorithm not in _KEY_NUMBERS:
        raise OpenPGPError("the key is of the algorithm {0}, which is not known here".format(algorithm))
    position = _skip_numbers(body, position, _KEY_NUMBERS.get(algorithm, 1))
    if algorithm == _ECDH and position < len(body):
        position += 1 + body[position]
    if position != len(body):
        raise OpenPGPError("the key is damaged: it does not end where its numbers do")


def _check_signature(body):
    """Refuse a signature of version 4 that is not whole to its last byte, and every other version."""
    if len(body) < 6 or body[0:1] != b"\x04":
        raise OpenPGPError("only signatures of version 4 can be read")
    position = 4
    for _part in ("hashed", "unhashed"):
        if position + 2 > len(body):
            raise OpenPGPError("a signature is cut off")
        length = struct.unpack(">H", body[position : position + 2])[0]
        _subpackets(body[position + 2 : position + 2 + length])
        position += 2 + length
    if body[2] not in _SIGNATURE_NUMBERS:
        raise OpenPGPError("a signature is of the algorithm {0}, which is not known here".format(body[2]))
    if _skip_numbers(body, position + 2, _SIGNATURE_NUMBERS[body[2]]) != len(body):
        raise OpenPGPError("a signature does not end where its numbers do")


def _skip_numbers(body, position, count):
    """Return where the numbers end that begin at a position: each is its length in bits and its bytes."""
    for _number in range(count):
        if position + 2 > len(body):
            raise OpenPGPError("the key is damaged: a number is missing")
        position += 2 + (struct.unpack(">H", body[position : position + 2])[0] + 7) // 8
    return position


def _key(body):
    _check_key(body)
    fingerprint = hashlib.sha1(b"\x99" + struct.pack(">H", len(body)) + body)  # noqa: S324 - RFC 4880 defines it so
    return {
        "fingerprint": fingerprint.hexdigest().upper(),
        "created": struct.unpack(">I", body[1:5])[0],
        "expires": None,
        "revoked": False,
        "user_ids": [],
        "packets": b"",
        # When the newest signature of each kind was made, and the end that it gives. One on the key itself comes first.
        "_direct": (-1, None),
        "_certified": (-1, None),
    }


def _apply_signature(key, body):
    """Take expiry and revocation from a signature that the key made on itself; the newest one counts."""
    if body[1] not in _CERTIFICATIONS + (_DIRECT_KEY, _KEY_REVOCATION):
        return
    hashed_end = 6 + struct.unpack(">H", body[4:6])[0]
    hashed = _subpackets(body[6:hashed_end])
    unhashed_length = struct.unpack(">H", body[hashed_end : hashed_end + 2])[0]
    unhashed = _subpackets(body[hashed_end + 2 : hashed_end + 2 + unhashed_length])
    if binascii.unhexlify(key["fingerprint"][-16:]) not in (
        subpackets.get(kind, b"")[-8:] for subpackets in (hashed, unhashed) for kind in (_ISSUER, _ISSUER_FINGERPRINT)
    ):
        return
    if body[1] == _KEY_REVOCATION:
        key["revoked"] = True
        return
    kind = "_direct" if body[1] == _DIRECT_KEY else "_certified"
    signed, lifetime = (int.from_bytes(hashed.get(kind_of, b""), "big") for kind_of in (_CREATED, _KEY_EXPIRES))
    if signed >= key[kind][0]:
        key[kind] = (signed, key["created"] + lifetime if lifetime else None)


def _packets(data):
    """Yield (tag, body, whole packet) for each packet."""
    position = 0
    while position < len(data):
        start, first = position, data[position]
        if not first & 0x80:
            raise OpenPGPError("it is not in OpenPGP format")
        try:
            if first & 0x40:
                tag = first & 0x3F
                length, position = _new_length(data, position + 1)
            else:
                tag = (first >> 2) & 0x0F
                size = {0: 1, 1: 2, 2: 4}[first & 0x03]
                length = int.from_bytes(data[position + 1 : position + 1 + size], "big")
                position += 1 + size
        except (IndexError, KeyError, struct.error) as error:
            raise OpenPGPError("it is damaged or cut off") from error
        end = position + length
        if end > len(data):
            raise OpenPGPError("it is cut off")
        yield tag, data[position:end], data[start:end]
        position = end


def _subpackets(data):
    found, position = {}, 0
    while position < len(data):
        try:
            length, position = _subpacket_length(data, position)
        except (IndexError, struct.error) as error:
            raise OpenPGPError("a signature is cut off") from error
        if not length or position + length > len(data):
            raise OpenPGPError("a signature is damaged")
        # The first of a kind would be another one's last: a second one is not believed.
        kind, content = data[position] & 0x7F, data[position + 1 : position + length]
        if kind in (_CREATED, _KEY_EXPIRES) and (kind in found or len(content) != 4):
            raise OpenPGPError("a signature says twice, or not in seconds, when it was made or when the key ends")
        found[kind] = content
        position += length
    return found


def _subpacket_length(data, position):
    """Return (length, where it begins); other than a packet's it has two bytes up to 254."""
    first = data[position]
    if first < 192:
        return first, position + 1
    if first < 255:
        return ((first - 192) << 8) + data[position + 1] + 192, position + 2
    return struct.unpack(">I", data[position + 1 : position + 5])[0], position + 5


def _new_length(data, position):
    first = data[position]
    if first < 192:
        return first, position + 1
    if first < 255:
        if first >= 224:
            raise OpenPGPError("it uses partial packets, which keys do not")
        return ((first - 192) << 8) + data[position + 1] + 192, position + 2
    return struct.unpack(">I", data[position + 1 : position + 5])[0], position + 5


def _crc24(data):
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _bit in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return struct.pack(">I", crc & 0xFFFFFF)[1:]
