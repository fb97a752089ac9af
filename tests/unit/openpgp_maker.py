# SPDX-License-Identifier: GPL-3.0-or-later
"""Public keys and signatures of OpenPGP with any content, which gpg would not make, and which hold all the same."""

from __future__ import annotations

import functools
import hashlib
import random

SIGNATURE, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY, MARKER, TRUST = 2, 5, 6, 7, 10, 12
USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE = 13, 14, 17
CREATED = 1_600_000_000
HASHES = {2: ("sha1", "3021300906052b0e03021a05000414"), 8: ("sha256", "3031300d060960864801650304020105000420")}


def packet(tag: int, body: bytes) -> bytes:
    """A packet of the newer format, with its length in one, two or five bytes."""
    if len(body) < 192:
        length = bytes([len(body)])
    elif len(body) < 8384:
        length = bytes([((len(body) - 192) >> 8) + 192, (len(body) - 192) & 0xFF])
    else:
        length = b"\xff" + len(body).to_bytes(4, "big")
    return bytes([0xC0 | tag]) + length + body


def number(value: int) -> bytes:
    """A number as keys hold it: its length in bits, and its bytes."""
    return value.bit_length().to_bytes(2, "big") + value.to_bytes((value.bit_length() + 7) // 8, "big")


def part(kind: int, content: bytes) -> bytes:
    """A part of a signature."""
    length = len(content) + 1
    return (bytes([length]) if length < 192 else b"\xff" + length.to_bytes(4, "big")) + bytes([kind]) + content


def dated(signed: int = CREATED, lifetime: int | None = None, flags: int | None = None) -> bytes:
    """What a signature says: when it was made, after how many seconds the key ends, what the key may do."""
    said = part(2, signed.to_bytes(4, "big"))
    said += b"" if lifetime is None else part(9, lifetime.to_bytes(4, "big"))
    return said + (b"" if flags is None else part(27, bytes([flags])))


@functools.cache
def primes(seed: int) -> tuple[int, int]:
    """Two primes of 1024 bits, always the same ones: nothing is secret here."""
    source, found = random.Random(seed), list[int]()  # noqa: S311 - see above
    while len(found) < 2:
        value = source.getrandbits(1024) | 3 << 1022 | 1
        # Sequoia takes no shorter key, and trying small factors first makes these in less than a second.
        if all(value % small for small in range(3, 2000, 2)) and pow(3, value - 1, value) == 1 and value % 65537 != 1:
            found.append(value)
    return found[0], found[1]


class Key:
    """A key of RSA whose signatures are made here."""

    def __init__(self, seed: int, created: int = CREATED) -> None:
        self.p, self.q = primes(seed)
        self.body = b"\x04" + created.to_bytes(4, "big") + b"\x01" + number(self.p * self.q) + number(65537)
        self.hashed = b"\x99" + len(self.body).to_bytes(2, "big") + self.body
        self.fingerprint = hashlib.sha1(self.hashed).hexdigest().upper()  # noqa: S324 - RFC 4880
        self.id = bytes.fromhex(self.fingerprint[-16:])
        self.packet = packet(PUBLIC_KEY, self.body)

    def signature_body(
        self,
        kind: int,
        what: bytes,
        said: bytes | None = None,
        unsigned: bytes = b"",
        issuer: bytes | None = None,
        method: int = 8,
    ) -> bytes:
        """A signature of version 4 over `what`, which holds."""
        said = dated() if said is None else said
        issued = part(16, self.id if issuer is None else issuer) + unsigned
        trailer = b"\x04" + bytes([kind, 1, method]) + len(said).to_bytes(2, "big") + said
        name, prefix = HASHES[method]
        digest = hashlib.new(name, what + trailer + b"\x04\xff" + len(trailer).to_bytes(4, "big")).digest()
        content = bytes.fromhex(prefix) + digest
        padded = b"\0\1" + b"\xff" * (256 - 3 - len(content)) + b"\0" + content
        value, (p, q) = int.from_bytes(padded, "big"), (self.p, self.q)
        # By each prime alone, as all do it: it takes a quarter of the time.
        by_p, by_q = (pow(value, pow(65537, -1, prime - 1), prime) for prime in (p, q))
        signed = by_q + q * ((by_p - by_q) * pow(q, -1, p) % p)
        return trailer + len(issued).to_bytes(2, "big") + issued + digest[:2] + number(signed)

    def signature(
        self,
        kind: int,
        what: bytes,
        said: bytes | None = None,
        unsigned: bytes = b"",
        issuer: bytes | None = None,
        method: int = 8,
    ) -> bytes:
        return packet(SIGNATURE, self.signature_body(kind, what, said, unsigned, issuer, method))

    def of_name(self, name: bytes) -> bytes:
        return self.hashed + b"\xb4" + len(name).to_bytes(4, "big") + name

    def named(self, name: bytes = b"me", said: bytes | None = None) -> bytes:
        return packet(USER_ID, name) + self.signature(0x13, self.of_name(name), said)

    def of_subkey(self, subkey: Key) -> bytes:
        return self.hashed + subkey.hashed

    def bound(self, subkey: Key, said: bytes | None = None) -> bytes:
        """A subkey that may sign, with both signatures that it needs."""
        back = part(32, subkey.signature_body(0x19, self.of_subkey(subkey), dated(CREATED + 1)))
        said = dated(CREATED + 1, flags=2) if said is None else said
        return packet(PUBLIC_SUBKEY, subkey.body) + self.signature(0x18, self.of_subkey(subkey), said, back)
