"""A certificate for ``localhost`` that signs itself, with its key; for tests, good until 2126."""

from __future__ import annotations

import ssl
import tempfile
from functools import cache
from pathlib import Path

PEM = """\
-----BEGIN CERTIFICATE-----
MIIBpTCCAUugAwIBAgIUPns/rRwWgoExJk7+LIPzPxLhW70wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNTAzMjYyN1oYDzIxMjYxMTAx
MDMyNjI3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARcT7VUOUlcjBxNoCso1WfLXbWphe1LrHT3uyQB7iShixrPcr2IqCV8
o/85J478V7ArN/u1KhHnIdng2LyKw633o3kwdzAdBgNVHQ4EFgQUwA2drdTftWm0
/OANBwIDfmkuj9owHwYDVR0jBBgwFoAUwA2drdTftWm0/OANBwIDfmkuj9owFAYD
VR0RBA0wC4IJbG9jYWxob3N0MA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQD
AgKEMAoGCCqGSM49BAMCA0gAMEUCIQCVrcDa2nQ+lt8xbrcDHnWlTWGouyfQf8VJ
XEyzQel9BQIgUJlZM4rzxaOn1+chMkqzq3MFeLpgk+sRC0oCWp+g/so=
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgYflWk6MD6qZ9/tk7
TjOd0NXOyTL69Bzw4iqLx3E0qVGhRANCAARcT7VUOUlcjBxNoCso1WfLXbWphe1L
rHT3uyQB7iShixrPcr2IqCV8o/85J478V7ArN/u1KhHnIdng2LyKw633
-----END PRIVATE KEY-----
"""


@cache
def certificate() -> Path:
    """Return a file with the certificate and its key; it lasts as long as the machine's /tmp."""
    with tempfile.NamedTemporaryFile("w", prefix="localhost-", suffix=".pem", delete=False) as file:
        file.write(PEM)
    return Path(file.name)


@cache
def trusted_tls() -> ssl.SSLContext:
    """Return a context of clients that trust it."""
    return ssl.create_default_context(cadata=PEM.partition("-----BEGIN PRIVATE")[0])
