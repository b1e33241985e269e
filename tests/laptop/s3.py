#!/usr/bin/env python3
"""S3 as moto speaks it, on two ports: one sound, one that fails half of its requests.

Prints both ports on one line and ends with its standard input. A request that fails gets, in turn, a 503, a closed
connection before any answer, or an answer that ends in its middle. Needs `pip install 'moto[server]'`.
"""

import itertools
import logging
import random
import socket
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
SOUND = DomainDispatcherApplication(create_backend_app)


class Failing:
    """Fails half of what it is asked, after it was done as often as before."""

    def __init__(self):
        self.chance = random.Random(1)
        self.kinds = itertools.cycle(["busy", "cut", "half"])
        self.lock = threading.Lock()
        self.asked = self.failed = 0

    def __call__(self, environ, start_response):
        with self.lock:
            self.asked += 1
            kind = next(self.kinds) if self.chance.random() < 0.5 else None
            self.failed += kind is not None
            done = self.chance.random() < 0.5
        if kind is None:
            return SOUND(environ, start_response)
        if kind == "busy":
            if done:
                b"".join(SOUND(environ, lambda *_: None))
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if kind == "cut":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError("as asked")
        body = b"".join(SOUND(environ, start_response))
        return [body[: len(body) // 2]]


def serve(app):
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


failing = Failing()
print(serve(SOUND), serve(failing), flush=True)
sys.stdin.read()
print(f"{failing.failed} of {failing.asked} requests failed", file=sys.stderr)
