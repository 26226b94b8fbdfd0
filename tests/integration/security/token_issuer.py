"""A small OpenID Connect provider: access tokens for client credentials, and the keys that prove them."""

import contextlib
import json
import threading
import time
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

AUDIENCE = "kafka"


class TokenIssuer:
    """POST /token with basic authentication gives a JWT whose subject is the client; GET /keys gives the JWKS."""

    def __init__(self, clients):
        self._clients = clients
        self._key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def token_url(self):
        return f"http://127.0.0.1:{self._server.server_port}/token"

    @property
    def keys_url(self):
        return f"http://127.0.0.1:{self._server.server_port}/keys"

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def keys(self):
        return KeySet([self._key]).as_dict(private=False)

    def token(self, client):
        now = int(time.time())
        claims = {"sub": client, "aud": AUDIENCE, "iat": now, "exp": now + 3600}
        return jwt.encode({"alg": "RS256", "kid": "1"}, claims, self._key)

    def client_of(self, authorization):
        """The client whose secret this header holds, or None."""
        with contextlib.suppress(ValueError):
            client, _, secret = b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            return client if self._clients.get(client) == secret else None
        return None

    def _handler(issuer):  # noqa: N805 - the handler's methods have a `self` of their own
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer(200, issuer.keys())

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                client = issuer.client_of(self.headers.get("Authorization", ""))
                if client is None:
                    self._answer(401, {"error": "invalid_client", "error_description": "wrong client secret"})
                else:
                    self._answer(
                        200, {"access_token": issuer.token(client), "token_type": "Bearer", "expires_in": 3600}
                    )

            def log_message(self, *_):
                pass

            def _answer(self, status, content):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler
