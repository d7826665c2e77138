"""The signing repository: keys, TUF metadata, and their way onto a broker."""

from edge_release.create import create, fingerprint
from edge_release.signing import sign_bundle, verify_bundle

__all__ = ["create", "fingerprint", "sign_bundle", "verify_bundle"]
