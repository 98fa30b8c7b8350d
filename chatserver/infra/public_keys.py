"""Public keys that tokens are checked with: read once, held to one kind of algorithm each."""

from typing import Any, Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.exceptions import PyJWTError

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

RS256: Final = "RS256"
ES256: Final = "ES256"
EDDSA: Final = "EdDSA"
_LEAST_RSA_BITS: Final = 2048


def read_pem(pem: str) -> PublicKey:
    """Read a public key.

    Raises:
        ValueError: it is none that tokens may be signed with; the text is not quoted.
    """
    try:
        key = load_pem_public_key(pem.strip().replace("\r\n", "\n").encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("must be a public key in PEM, -----BEGIN PUBLIC KEY-----") from error
    return _checked(key)


def read_jwk(jwk: dict[str, Any]) -> PublicKey:
    """Read one key of a JWKS.

    Raises:
        ValueError: it is none that tokens may be signed with.
    """
    if jwk.get("kty") not in {"RSA", "EC", "OKP"} or "d" in jwk:
        raise ValueError("is no public key")
    if jwk.get("use", "sig") != "sig":
        raise ValueError("is not for signatures")
    try:
        return _checked(PyJWK(jwk, algorithm=_algorithm_of(jwk)).key)
    except (PyJWTError, TypeError, KeyError, AttributeError) as error:
        raise ValueError("is not readable") from error


def algorithm_of(key: PublicKey) -> str:
    """Name the one algorithm that a key is good for here, whatever a token says."""
    if isinstance(key, RSAPublicKey):
        return RS256
    if isinstance(key, EllipticCurvePublicKey):
        return ES256
    return EDDSA


def _algorithm_of(jwk: dict[str, Any]) -> str:
    return {"RSA": RS256, "EC": ES256, "OKP": EDDSA}[jwk["kty"]]


def _checked(key: object) -> PublicKey:
    if isinstance(key, RSAPublicKey):
        if key.key_size < _LEAST_RSA_BITS:
            raise ValueError(f"must have at least {_LEAST_RSA_BITS} bits")
        return key
    if isinstance(key, EllipticCurvePublicKey):
        if not isinstance(key.curve, SECP256R1):
            raise ValueError("must be on the curve P-256")  # noqa: TRY004 - the text is at fault
        return key
    if isinstance(key, Ed25519PublicKey):
        return key
    raise ValueError("must be an RSA, P-256 or Ed25519 key")
