# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until a server is healthy, or until its service has ended: wait_until_healthy.py URL SERVICE SECONDS."""

import subprocess
import sys
import time
import urllib.request

url, service, seconds = sys.argv[1:]
deadline = time.monotonic() + int(seconds)
# The server is on this host: no proxy is in between.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def healthy():
    try:
        with opener.open(url, timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


while not healthy():
    # A service that ended is not active until systemd starts it again, some seconds later.
    if subprocess.call(["/usr/bin/systemctl", "--quiet", "is-active", service]):
        sys.exit("it ended before it was healthy")
    if time.monotonic() > deadline:
        sys.exit(f"it was not healthy within {seconds} seconds")
    time.sleep(1)
