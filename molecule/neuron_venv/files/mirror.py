# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve a wheelhouse as a package index over HTTPS on 127.0.0.1:8443: mirror.py WHEELHOUSE FOLDER CERTIFICATE KEY."""

import functools
import http.server
import re
import ssl
import sys
from pathlib import Path

wheelhouse, folder, certificate, key = sys.argv[1:]
for file in Path(wheelhouse).iterdir():
    # A wheel's name has no dash before its version; a source archive's may have some.
    name = file.name.split("-")[0] if file.suffix == ".whl" else re.split(r"-\d", file.name)[0]
    project = Path(folder, re.sub(r"[-_.]+", "-", name).lower())
    project.mkdir(parents=True, exist_ok=True)
    if not (project / file.name).exists():
        (project / file.name).symlink_to(file)
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
