"""An application's own identity provider: it signs tokens, well or badly."""

import base64
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from chatserver.infra.public_keys import algorithm_of

ISSUER = "https://login.example"
AUDIENCE = "chat"


def part(value: Any) -> str:
    """Write one part of a token as it is, valid or not."""
    text = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


@dataclass
class Issuer:
    """Keys of one algorithm. `token` gives a good token, unless it is told otherwise."""

    private: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    name: str = ISSUER
    audience: str = AUDIENCE
    kid: str | None = "k1"

    @classmethod
    def elliptic(cls) -> "Issuer":
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def edwards(cls) -> "Issuer":
        return cls(ed25519.Ed25519PrivateKey.generate())

    @property
    def algorithm(self) -> str:
        return algorithm_of(self.private.public_key())

    @property
    def pem(self) -> str:
        public = self.private.public_key()
        text: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return text.decode()

    def jwk(self) -> dict[str, Any]:
        maker: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        made = maker[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        return {**made, "kid": self.kid, "use": "sig"}

    def registration(self, **other: Any) -> dict[str, Any]:
        """What `PATCH /client` takes."""
        return {
            "issuer": self.name,
            "audience": self.audience,
            "algorithms": [self.algorithm],
            "pem": self.pem,
            **other,
        }

    def claims(self, user: str = "alice", **other: Any) -> dict[str, Any]:
        """The claims of a good token; None leaves one out."""
        now = int(time.time())
        made = {
            "iss": self.name,
            "aud": self.audience,
            "sub": user,
            "iat": now,
            "exp": now + 600,
            **other,
        }
        return {name: value for name, value in made.items() if value is not None}

    def token(
        self, user: str = "alice", *, headers: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        return self.sign(part(self.claims(user, **claims)), headers)

    def sign(self, payload: str, headers: dict[str, Any] | None = None) -> str:
        """Sign a payload that is written already."""
        header = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **(headers or {})}
        signed = f"{part({k: v for k, v in header.items() if v is not None})}.{payload}"
        signer = jwt.get_algorithm_by_name(self.algorithm)
        return f"{signed}.{part(signer.sign(signed.encode(), self.private))}"


def own_issuer() -> Issuer:
    """An issuer that no other test's tenant has registered."""
    return Issuer(name=f"https://login.example/{secrets.token_hex(8)}")
