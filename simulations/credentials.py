"""Certificates and node keys for a lab: an authority, a server certificate, one key pair per machine.

``python -m simulations.credentials DIR --host NAME_OR_IP --nodes 2`` writes what docs/lab.md uses. Existing files are never
written over, and private keys are readable by their owner alone.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAYS = 365


def make_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Write ``ca.crt`` and ``ca.key``; keep the key off every machine but this one."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Back-Pack lab CA")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    authority = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    _write(folder / "ca.key", _private_pem(key), secret=True)
    _write(folder / "ca.crt", authority.public_bytes(serialization.Encoding.PEM))
    return authority, key


def make_server_certificate(
    folder: Path, hosts: list[str], authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> None:
    """Write ``server.pem`` and ``server.key`` for a SuperLink that is reached under these names or addresses."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _builder(name, authority.subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName([_alternative_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(issuer_id, critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    _write(folder / "server.key", _private_pem(key), secret=True)
    _write(folder / "server.pem", certificate.public_bytes(serialization.Encoding.PEM))


def make_node_key(folder: Path, name: str) -> None:
    """Write the key pair of one SuperNode, ``NAME`` and ``NAME.pub``, ECDSA in OpenSSH form as Flower wants it."""
    key = ec.generate_private_key(ec.SECP384R1())
    form = serialization.PrivateFormat.OpenSSH
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(folder / name, private, secret=True)
    _write(folder / f"{name}.pub", public + b"\n")


def main() -> None:
    """Write all credentials of a lab."""
    parser = argparse.ArgumentParser(description="Make the certificates and node keys of a lab.")
    parser.add_argument("folder", type=Path, help="where to write them; made if it is not there")
    parser.add_argument("--host", action="append", required=True, help="name or address of the server; may be repeated")
    parser.add_argument("--nodes", type=int, default=2, help="number of SuperNodes (default 2)")
    told = parser.parse_args()
    nodes = [f"node-{number}" for number in range(1, told.nodes + 1)]
    names = ["ca.crt", "ca.key", "server.pem", "server.key", *nodes, *(f"{node}.pub" for node in nodes)]
    try:
        told.folder.mkdir(parents=True, exist_ok=True)
        for name in names:  # before anything is written: half a set would not fit the other half
            _refuse(told.folder / name)
        authority, key = make_authority(told.folder)
        make_server_certificate(told.folder, told.host, authority, key)
        for node in nodes:
            make_node_key(told.folder, node)
    except OSError as error:
        sys.stderr.write(f"credentials: {error}\n")
        sys.exit(1)


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
    )


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _refuse(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists already; choose another folder")


def _write(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Write a new file.

    Raises:
        FileExistsError: it is there already.
    """
    _refuse(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


if __name__ == "__main__":
    main()
