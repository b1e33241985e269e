#!/usr/bin/env python3
"""Google Cloud Storage's XML requests, answered by moto's S3.

The emulators in the package registries speak Google's JSON, and tunesmith, like every program over
`object_store`, speaks its XML. That is S3's but for three things, which are here: who asks (a token, or a
claim signed with a service account's key), create only (`x-goog-if-generation-match: 0`), and the
generation of what was put.

Prints `token T`, `account JSON`, `stranger JSON` (an account with another key) and `port N`, has a
bucket called `bucket`, and ends with its standard input. Needs `pip install 'moto[server]'`.
"""

import base64
import itertools
import json
import logging
import secrets
import sys
import threading
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import Client

logging.getLogger("werkzeug").setLevel(logging.ERROR)
S3 = DomainDispatcherApplication(create_backend_app)
EMAIL = "tests@project.iam.gserviceaccount.com"
TOKEN = secrets.token_hex(16)
# Moto wants a name, and believes any signature.
SIGNED = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=any"
DENIED = b"<?xml version='1.0'?><Error><Code>AuthenticationRequired</Code><Message>Authentication required.</Message></Error>"


def new_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def account(key):
    """What Google hands out as `service-account.json`."""
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = key.private_bytes(*form).decode()
    fields = {"type": "service_account", "private_key_id": "1", "private_key": pem, "client_email": EMAIL}
    return json.dumps(fields)


KEY = new_key()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def trusted(authorization):
    """Whether it is the token, or claims of the account that hold and are signed."""
    kind, _, token = authorization.partition(" ")
    if kind == "Bearer" and token == TOKEN:
        return True
    signed, _, signature = token.rpartition(".")
    try:
        KEY.public_key().verify(decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        claims = json.loads(decoded(signed.split(".")[1]))
        return kind == "Bearer" and claims["iss"] == EMAIL and claims["exp"] > time.time()
    except (InvalidSignature, ValueError, LookupError):
        return False


generations = itertools.count(1)


def google(environ, start_response):
    if not trusted(environ.get("HTTP_AUTHORIZATION", "")):
        head = [("Content-Type", "application/xml"), ("Content-Length", str(len(DENIED)))]
        start_response("401 Unauthorized", head)
        return [DENIED]
    environ["HTTP_AUTHORIZATION"] = SIGNED
    if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
        environ["HTTP_IF_NONE_MATCH"] = "*"

    def start(status, headers, failed=None):
        return start_response(status, [*headers, ("x-goog-generation", str(next(generations)))], failed)

    return S3(environ, start)


server = make_server("127.0.0.1", 0, google, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
assert Client(S3).put("/bucket", headers={"Authorization": SIGNED}).status_code == 200
print("token", TOKEN)
print("account", account(KEY))
print("stranger", account(new_key()))
print("port", server.server_port, flush=True)
sys.stdin.read()
