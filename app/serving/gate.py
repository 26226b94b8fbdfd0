"""Who may ask: API keys and JSON Web Tokens, the same over REST and gRPC. Nothing of a key or token is ever shown."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from app.clock import Clock
from app.errors import BadSettings
from app.serving.refusals import NotAllowed

KINDS: Mapping[str, Literal["oct", "RSA", "EC", "OKP"]] = {
    "HS": "oct", "RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP",
}  # fmt: skip
LONGEST_CREDENTIAL = 16_384  # characters; a token with every claim one can think of has a quarter of that


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """key: PEM, JSON Web Key (Set) or a secret. issuer, audience, predict_scope: None asks for nothing."""

    key: str = field(repr=False)
    algorithms: tuple[str, ...] = ("RS256",)
    issuer: str | None = None
    audience: str | None = None
    predict_scope: str | None = None
    admin_scope: str = "inference.admin"


class Gate:
    """Lets callers in, or raises NotAllowed.

    api_keys: for predictions. admin_keys: for everything. Without keys and tokens everybody may ask for predictions;
    nobody may ever administrate without proof.
    """

    def __init__(
        self, api_keys: Sequence[str], admin_keys: Sequence[str], tokens: TokenPolicy | None, clock: Clock
    ) -> None:
        """Raises BadSettings if tokens cannot be verified with the key that is given."""
        self._admins = frozenset(map(_digest, admin_keys))
        self._callers = frozenset(map(_digest, api_keys)) | self._admins
        self._tokens, self._clock = tokens, clock
        self._key = _imported(tokens) if tokens else None
        self._open = not api_keys and tokens is None

    def admit(self, authorization: str | None, api_key: str | None) -> None:
        """To predictions. authorization, api_key: the headers of these names, or None."""
        if self._open:
            return
        scope = self._tokens.predict_scope if self._tokens else None
        self._admit(authorization, api_key, self._callers, scope)

    def admit_admin(self, authorization: str | None, api_key: str | None) -> None:
        """To everything."""
        if not self._admins and self._tokens is None:
            raise NotAllowed("administration is off: set serving.access.admin_keys_file or jwt_key_file", known=True)
        self._admit(authorization, api_key, self._admins, self._tokens.admin_scope if self._tokens else None)

    def _admit(self, authorization: str | None, api_key: str | None, keys: frozenset[bytes], scope: str | None) -> None:
        kind, _, bearer = (authorization or "").partition(" ")
        offered = [text for text in (api_key, bearer.strip() if kind.lower() == "bearer" else None) if text]
        if not offered:
            raise NotAllowed("a key or a token is needed: X-API-Key, or Authorization: Bearer")
        known = False
        for text in offered:
            if len(text) > LONGEST_CREDENTIAL:
                continue
            digest = _digest(text)
            if digest in keys:
                return
            known |= digest in self._callers
        for text in offered:
            if self._tokens is not None and text.count(".") == 2 and len(text) <= LONGEST_CREDENTIAL:
                allowed = self._scopes(text)
                if scope is None or scope in allowed:
                    return
                known = True
        raise NotAllowed("this is not allowed to you" if known else "the key or token is not known", known=known)

    def _scopes(self, token: str) -> frozenset[str]:
        """What a good token allows. Raises NotAllowed; why is for people, and says nothing of the key."""
        policy = self._tokens
        if policy is None or self._key is None:
            return frozenset()
        wanted: dict[str, Any] = {"exp": {"essential": True}}
        if policy.issuer is not None:
            wanted["iss"] = {"essential": True, "value": policy.issuer}
        if policy.audience is not None:
            wanted["aud"] = {"essential": True, "value": policy.audience}
        try:
            claims = jwt.decode(token, self._key, algorithms=list(policy.algorithms)).claims
            jwt.JWTClaimsRegistry(now=self._clock.now_ms() // 1000, leeway=30, **wanted).validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as exc:
            raise NotAllowed(f"the token is not good: {type(exc).__name__}") from None
        scope = claims.get("scope", "")
        return frozenset(
            scope.split() if isinstance(scope, str) else map(str, scope if isinstance(scope, list) else ())
        )


def _digest(text: str) -> bytes:
    """Compared instead of the key: how long that takes tells nothing about it."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _imported(policy: TokenPolicy) -> Any:  # noqa: ANN401 - one of many kinds of key
    text = policy.key.strip()
    kind: Literal["oct", "RSA", "EC", "OKP"] = KINDS[policy.algorithms[0][:2]]
    try:
        if text.startswith("{"):
            page = orjson.loads(text)
            return jwk.KeySet.import_key_set(page) if "keys" in page else jwk.JWKRegistry.import_key(page)
        return jwk.JWKRegistry.import_key(text, kind)
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        what = "JSON Web Key" if text.startswith("{") else kind
        raise BadSettings(f"serving.access.jwt_key: this is no {what} key: {type(exc).__name__}") from None
