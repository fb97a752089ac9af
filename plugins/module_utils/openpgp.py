# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read OpenPGP public keys (RFC 4880): whose they are and until when they hold.

A fresh host has gpgv for apt but often no gpg, so looking at a key must not need one. Nothing here judges a signature:
apt and dnf do that, with the key whose fingerprint was compared here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct

_PUBLIC_KEY, _SIGNATURE, _USER_ID, _PUBLIC_SUBKEY = 6, 2, 13, 14
_CERTIFICATIONS, _DIRECT_KEY, _KEY_REVOCATION = (0x10, 0x11, 0x12, 0x13), 0x1F, 0x20
_CREATED, _KEY_EXPIRES, _ISSUER, _ISSUER_FINGERPRINT = 2, 9, 16, 33


class OpenPGPError(ValueError):
    """What was read is no OpenPGP public key."""


def dearmor(data):
    """Return the binary packets of a key that may be ASCII-armoured."""
    begin, end = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"
    if begin not in data:
        return data
    if end not in data:
        raise OpenPGPError("the key is cut off: it has no END line")
    packets = b""
    for block in data.split(begin)[1:]:
        lines = block.split(end)[0].replace(b"\r", b"").split(b"\n")[1:]
        # Headers such as "Version: ..." end with an empty line; a line that starts with "=" is the checksum.
        headers = next((number for number, line in enumerate(lines) if not line.strip()), -1)
        body = [line.strip() for line in lines[headers + 1 :]]
        try:
            decoded = base64.b64decode(b"".join(line for line in body if not line.startswith(b"=")), validate=True)
        except binascii.Error as error:
            raise OpenPGPError("the key is damaged: {0}".format(error)) from error
        checksum = [line[1:] for line in body if line.startswith(b"=")]
        if checksum and base64.b64decode(checksum[0]) != _crc24(decoded):
            raise OpenPGPError("the key is damaged: its checksum does not match")
        packets += decoded
    return packets


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
        if tag == _USER_ID:
            key["user_ids"].append(body.decode("utf-8", "replace"))
        elif tag == _PUBLIC_SUBKEY:
            key["_of"] = "subkey"
        elif tag == _SIGNATURE and key["_of"] is None:
            _apply_signature(key, body)
    if not keys:
        raise OpenPGPError("there is no public key in it")
    for key in keys:
        expiries = [expires for _signed, expires in (key["_direct"], key["_certified"]) if expires]
        key["expires"] = expiries[0] if expiries else None
        del key["_of"], key["_direct"], key["_certified"]
    return keys


def _key(body):
    if len(body) < 6 or body[0:1] != b"\x04":
        raise OpenPGPError("only keys of version 4 can be read")
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
    if len(body) < 6 or body[0:1] != b"\x04" or body[1] not in _CERTIFICATIONS + (_DIRECT_KEY, _KEY_REVOCATION):
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
    signed = struct.unpack(">I", hashed[_CREATED])[0] if _CREATED in hashed else 0
    lifetime = struct.unpack(">I", hashed[_KEY_EXPIRES])[0] if _KEY_EXPIRES in hashed else 0
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
        length, position = _new_length(data, position)
        if length:
            found[data[position] & 0x7F] = data[position + 1 : position + length]
        position += length
    return found


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
