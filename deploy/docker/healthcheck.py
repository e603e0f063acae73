"""Exit with 0 if the server of this container accepts streams, as its settings say where to ask."""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.request

from tympan.config import config_file, load_config

TIMEOUT_SECONDS = 4


def main() -> int:
    """Ask `/ready`, and print why the server is not ready."""
    settings = load_config(config_file()).server
    scheme = "https" if settings.tls_certificate else "http"
    unverified = ssl._create_unverified_context()  # the certificate is for the name that clients use
    try:
        url = f"{scheme}://127.0.0.1:{settings.port}/ready"
        urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS, context=unverified)
    except urllib.error.HTTPError as error:
        print(error.read().decode(errors="replace"))
        return 1
    except OSError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
