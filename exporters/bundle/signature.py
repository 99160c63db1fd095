"""The signature of a bundle's manifest, by sigstore: a short-lived certificate names who signed, a public log when.

The manifest has the SHA-256 of every other file, so its signature is the bundle's. Other tools that know sigstore's
format (``sigstore verify identity``, ``cosign verify-blob``) read the same file.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from vitcompress.core.errors import BundleError, EnvironmentLacksError
from vitcompress.core.files import write_atomic
from vitcompress.core.record import Record
from vitcompress.exporters.bundle.layout import MANIFEST, SIGNATURE
from vitcompress.exporters.bundle.read import open_bundle


class Signed(Record):
    """Who signed a bundle."""

    signer: str
    """A mail address, or the address of a workflow."""
    issuer: str
    """Address of the OIDC provider that knows it."""


def sign(bundle: Path | str) -> Signed:
    """Sign the manifest of a bundle with the identity of this CI job, or of who signs in by the browser.

    Raises:
        BundleError: the bundle is damaged.
        EnvironmentLacksError: sigstore is not installed or not reached, or there is no identity.
    """
    open_bundle(Path(bundle))
    signature, who = _signed((Path(bundle) / MANIFEST).read_bytes())
    write_atomic(Path(bundle) / SIGNATURE, signature)
    return who


def check_signature(bundle: Path | str, *, identity: str, issuer: str) -> Signed:
    """Return who signed a bundle, where that is ``identity``, whom ``issuer`` knows; needs no network.

    Raises:
        BundleError: it is not signed, or by somebody else, or not as it is now.
        EnvironmentLacksError: sigstore is not installed.
    """
    path, who = Path(bundle) / SIGNATURE, Signed(signer=identity, issuer=issuer)
    if not path.is_file():
        raise BundleError(f"bundle '{bundle}' is not signed: it has no {SIGNATURE}; `compress sign` makes one.")
    if why := _fault((path.parent / MANIFEST).read_bytes(), path.read_bytes(), who):
        raise BundleError(f"{path} does not show that {identity} ({issuer}) signed this bundle: {why}.")
    return who


def _signed(content: bytes) -> tuple[str, Signed]:
    """Return sigstore's JSON about ``content``, and whom it names."""
    sigstore = _sigstore()
    try:
        trust = sigstore.models.ClientTrustConfig.production()
        ambient = sigstore.oidc.detect_credential()
        if not (ambient or sys.stdin.isatty()):
            raise EnvironmentLacksError(
                "there is no identity to sign with: no terminal to sign in from, and no CI job that has one; on "
                "GitHub, give the job `permissions: {id-token: write}`."
            )
        browser = sigstore.oidc.Issuer(trust.signing_config.get_oidc_url()) if not ambient else None
        token = browser.identity_token() if browser else sigstore.oidc.IdentityToken(ambient)
        with sigstore.sign.SigningContext.from_trust_config(trust).signer(token) as signer:
            signature = signer.sign_artifact(content).to_json()
        return signature, Signed(signer=token.identity, issuer=token.federated_issuer)
    except (sigstore.errors.Error, sigstore.oidc.IssuerError, OSError) as error:  # those of requests are OSErrors
        raise EnvironmentLacksError(
            f"sigstore did not sign ({type(error).__name__}: {str(error).strip()[:200]}); it takes a network that "
            "reaches sigstore.dev. Nothing was written."
        ) from error


def _fault(content: bytes, signature: bytes, who: Signed) -> str:
    """Return why a signature does not hold, by the keys that sigstore came with or fetched last; empty if it does."""
    sigstore = _sigstore()
    policy = sigstore.verify.policy.Identity(identity=who.signer, issuer=who.issuer)
    try:
        found = sigstore.models.Bundle.from_json(signature)
    except (sigstore.errors.Error, ValueError):
        return "it is not in sigstore's format"
    try:
        sigstore.verify.Verifier.production(offline=True).verify_artifact(content, found, policy)
    except sigstore.errors.Error as error:
        return str(error).strip().rstrip(".") or type(error).__name__
    return ""


def _sigstore() -> Any:
    try:
        import sigstore.errors
        import sigstore.models
        import sigstore.oidc
        import sigstore.sign
        import sigstore.verify.policy
    except ImportError as error:
        raise EnvironmentLacksError("signatures need sigstore; pip install 'vitcompress[sign]'.") from error
    logging.getLogger("sigstore").setLevel(logging.ERROR)  # it warns that offline is offline
    return sigstore
