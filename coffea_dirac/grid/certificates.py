"""A certificate authority, certificates of a host and a user, a proxy, and WLCG tokens, for servers on loopback."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coffea_dirac.grid.storage import AUDIENCE, ISSUER

DAYS = 7
"""Life of certificates, and of the tokens that a lake in a box hands out."""
_USAGES = (
    "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
    "encipher_only decipher_only"
).split()


@dataclass(frozen=True)
class Pki:
    """Paths of what was made; `capath` is a directory of hashed names, as grid tools want it."""

    ca: Path
    capath: Path
    host_cert: Path
    host_key: Path
    user_cert: Path
    user_key: Path
    user_proxy: Path
    token_key: Path

    def token(self, scope: str = "storage.read:/ storage.modify:/ storage.create:/", **changes: object) -> str:
        """Return a signed token of `ISSUER`; `changes` replace claims."""
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": "jdoe", "aud": AUDIENCE, "scope": scope, "iat": now, "nbf": now - 5}
        claims |= {"exp": now + 3600, "jti": str(uuid.uuid4()), "wlcg.ver": "1.0", **changes}
        return self._signed_token(claims)

    @property
    def jwks(self) -> dict[str, object]:
        """The public keys of `ISSUER`."""
        numbers = self._key().public_key().public_numbers()
        n, e = (_text64(value.to_bytes((value.bit_length() + 7) // 8)) for value in (numbers.n, numbers.e))
        return {"keys": [{"kty": "RSA", "n": n, "e": e, "kid": "k1", "use": "sig", "alg": "RS256"}]}

    def _signed_token(self, claims: Any) -> str:
        head = {"alg": "RS256", "typ": "JWT", "kid": "k1"}
        said = ".".join(_text64(json.dumps(part).encode()) for part in (head, claims))
        signature = self._key().sign(said.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{said}.{_text64(signature)}"

    def _key(self) -> rsa.RSAPrivateKey:
        key = load_pem_private_key(self.token_key.read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key


def make_pki(folder: Path) -> Pki:
    """Make everything below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, ca_name = _key(folder / "ca.key"), _name("Test CA")
    ca = _signed(ca_name, ca_key, ca_name, ca_key, [(x509.BasicConstraints(ca=True, path_length=None), True)])
    (folder / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    capath = folder / "certificates"
    capath.mkdir(exist_ok=True)
    command = ["openssl", "x509", "-noout", "-hash", "-in", str(folder / "ca.pem")]
    name = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    (capath / f"{name}.0").write_bytes(ca.public_bytes(Encoding.PEM))
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    made_by = {}
    ours: list[tuple[x509.ExtensionType, bool]] = [(x509.SubjectAlternativeName(names), False)]
    for file, common, extra in (("host", "localhost", ours), ("user", "jdoe", [])):
        key = _key(folder / f"{file}.key")
        made = _signed(_name(common), key, ca_name, ca_key, [*extra, (usage, False)])
        (folder / f"{file}.pem").write_bytes(made.public_bytes(Encoding.PEM))
        made_by[file] = made, key
    _key(folder / "token.key")
    _write_proxy(folder, *made_by["user"])
    at = folder.joinpath
    return Pki(
        at("ca.pem"),
        capath,
        at("host.pem"),
        at("host.key"),
        at("user.pem"),
        at("user.key"),
        at("proxy.pem"),
        at("token.key"),
    )


def _write_proxy(folder: Path, user: x509.Certificate, user_key: rsa.RSAPrivateKey) -> None:
    proxy_key = _key(folder / "proxy.key")
    # As RFC 3820 says: issued by the user, for the user's own name and one part more.
    name = x509.Name([*user.subject, x509.NameAttribute(NameOID.COMMON_NAME, "12345")])
    # critical, inherit all: SEQUENCE { SEQUENCE { OID id-ppl-inheritAll } }
    info = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"), bytes.fromhex("300c300a06082b06010505071501")
    )
    signs = x509.KeyUsage(**{**dict.fromkeys(_USAGES, False), "digital_signature": True})
    proxy = _signed(name, proxy_key, user.subject, user_key, [(signs, True), (info, True)])
    parts = [(folder / "proxy.key").read_bytes(), user.public_bytes(Encoding.PEM)]
    (folder / "proxy.pem").touch(0o600)
    (folder / "proxy.pem").write_bytes(b"".join((proxy.public_bytes(Encoding.PEM), *parts)))


def _text64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _key(path: Path) -> rsa.RSAPrivateKey:
    key = rsa.generate_private_key(65537, 2048)
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def _name(common: str) -> x509.Name:
    parts = [(NameOID.DOMAIN_COMPONENT, "org"), (NameOID.DOMAIN_COMPONENT, "test"), (NameOID.COMMON_NAME, common)]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _signed(
    subject: x509.Name,
    key: rsa.RSAPrivateKey,
    issuer: x509.Name,
    issuer_key: rsa.RSAPrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=DAYS))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())
