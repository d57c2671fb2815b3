"""Certificates for the tests of TLS, made on the spot with openssl."""

import shutil
import subprocess
from pathlib import Path

from tests.support import missing

_EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """A certificate authority of its own; ``issue`` makes certificates."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _openssl(
            "req", "-x509", *_EC, "-days", "2", "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.certificate
        )

    def issue(self, name: str, *, holds: str = "IP:127.0.0.1,DNS:localhost", password: str = "") -> tuple[Path, Path]:
        """Make a certificate that ``holds`` these, and its key, encrypted when there is a ``password``; their paths."""
        certificate, key, wish = (self._folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={holds}\n")
        _openssl("req", "-new", *_EC, "-subj", f"/CN={name}", "-keyout", key, "-out", wish)
        _openssl(
            "x509", "-req", "-in", wish, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
            "-days", "2", "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        if password:
            plain = key.rename(key.with_suffix(".plain"))
            _openssl("pkcs8", "-topk8", "-in", plain, "-passout", f"pass:{password}", "-out", key)
        return certificate, key


def _openssl(*arguments: str | Path) -> None:
    openssl = shutil.which("openssl") or missing("openssl", "apt-get install openssl")
    subprocess.run([openssl, *arguments], check=True, capture_output=True, timeout=60)
