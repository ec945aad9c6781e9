"""A Kafka that authenticates users over TLS and checks their rights."""

import datetime
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from flowkit_kafka import KafkaConfig
from tests.servers.ports import LOOPBACK

ADMIN = "admin"
TOPIC, GROUP, CLUSTER = 2, 3, 4
LITERAL, PREFIXED = 3, 4
DENY, ALLOW = 2, 3
OPERATIONS = {
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Describe": 8,
    "DescribeConfigs": 10,
    "IdempotentWrite": 12,
}


@dataclass(frozen=True, slots=True)
class Right:
    """Permission or denial of an operation for a user."""

    user: str
    resource: int
    name: str
    operation: str
    pattern: int = LITERAL
    permission: int = ALLOW


def password(user: str) -> str:
    return f"{user}-password"


def certificate(folder: Path) -> Path:
    """Return a file with a self-signed certificate of this host and its key.

    The same file serves as the trusted authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flowkit tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "broker.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + made.public_bytes(Encoding.PEM),
    )
    return file


def secured(pem: Path, users: Iterable[str]) -> dict[str, object]:
    """Return the settings of such a broker; its listener keeps its name, but speaks SASL_SSL."""
    known = " ".join(f'user_{user}="{password(user)}"' for user in (ADMIN, *users))
    module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "listener_security_protocol_map": "PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter_broker_listener_name": "PLAINTEXT",
        "sasl_mechanism_inter_broker_protocol": "PLAIN",
        "sasl_enabled_mechanisms": "PLAIN",
        "listener_name_plaintext_plain_sasl_jaas_config": (
            f'{module} username="{ADMIN}" password="{password(ADMIN)}" {known};'
        ),
        "ssl_keystore_type": "PEM",
        "ssl_keystore_location": pem,
        "ssl_truststore_type": "PEM",
        "ssl_truststore_location": pem,
        "authorizer_class_name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow_everyone_if_no_acl_found": "false",
        "super_users": f"User:{ADMIN};User:ANONYMOUS",
    }


def login(user: str, pem: Path) -> dict[str, Any]:
    """Return the ``options.kafka`` with which a user connects."""
    return {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(pem),
        "sasl_mechanism": "PLAIN",
        "sasl_username": user,
        "sasl_password": password(user),
    }


async def grant(address: str, pem: Path, rights: Sequence[Right]) -> None:
    """Grant rights to users."""
    client = AIOKafkaClient(
        bootstrap_servers=address, **KafkaConfig(**login(ADMIN, pem)).connection()
    )
    await client.bootstrap()
    try:
        for one in rights:
            request = CreateAclsRequest(
                one.resource,
                one.name,
                one.pattern,
                f"User:{one.user}",
                "*",
                OPERATIONS[one.operation],
                one.permission,
            )
            answer = await client.send(client.get_random_node(), request)
            (result,) = answer.creation_responses
            assert result[0] == 0, (one, result)
    finally:
        await client.close()
