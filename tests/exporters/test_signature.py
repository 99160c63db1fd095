"""Signatures of bundles: what is signed, what is refused, and that nothing is passed over in silence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import in_process
from made_bundles import make

import vitcompress as vc
from vitcompress.core.errors import BundleError, EnvironmentLacksError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle import open_bundle, signature
from vitcompress.exporters.bundle.layout import MANIFEST, SIGNATURE
from vitcompress.exporters.bundle.signature import Signed

WHO = {"identity": "someone@example.org", "issuer": "https://issuer.example"}
SIGNED = Signed(signer=WHO["identity"], issuer=WHO["issuer"])
OPTIONS = ("--certificate-identity", WHO["identity"], "--certificate-oidc-issuer", WHO["issuer"])


def signed(content: bytes) -> tuple[str, Signed]:
    """Stand-in for sigstore's servers: remembers what was signed."""
    return json.dumps({"signed": content.hex(), **WHO}), SIGNED


def fault(content: bytes, text: bytes, who: Signed) -> str:
    """Stand-in for sigstore's verifier, of what ``signed`` made."""
    found = json.loads(text)
    if found["signed"] != content.hex():
        return "another content"
    return "" if {"identity": who.signer, "issuer": who.issuer} == WHO else f"signed by {found['identity']}"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "_signed", signed)
    monkeypatch.setattr(signature, "_fault", fault)


@pytest.mark.usefixtures("stand_in")
def test_a_signed_bundle_is_known_until_it_changes_and_only_as_its_signers(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec
) -> None:
    with pytest.raises(BundleError, match="is not signed"):
        vc.check_signature(bundle_folder, **WHO)
    assert vc.sign(bundle_folder) == vc.check_signature(bundle_folder, **WHO) == SIGNED
    open_bundle(bundle_folder)  # the signature is no foreign file
    with pytest.raises(BundleError, match=r"does not show that else@example.org .*: signed by someone@example.org"):
        vc.check_signature(bundle_folder, identity="else@example.org", issuer=WHO["issuer"])
    manifest = bundle_folder / MANIFEST
    manifest.write_text(manifest.read_text().replace('"plain"', '"other"'))
    with pytest.raises(BundleError, match="another content"):
        vc.check_signature(bundle_folder, **WHO)
    make(bundle_folder, onnx_file, spec)
    assert not (bundle_folder / SIGNATURE).exists()  # it would be of the bundle that was


@pytest.mark.usefixtures("stand_in")
def test_a_damaged_bundle_is_not_signed(bundle_folder: Path) -> None:
    (bundle_folder / "labels.txt").write_text("0\n")
    with pytest.raises(BundleError, match=r"labels\.txt is damaged"):
        vc.sign(bundle_folder)
    assert not (bundle_folder / SIGNATURE).exists()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("command", ["doctor", "predict", "verify"])
def test_commands_check_it_before_anything_else(command: str, bundle_folder: Path, tmp_path: Path) -> None:
    rest = [str(tmp_path / "absent.png")] if command == "predict" else []
    refused = in_process(command, str(bundle_folder), *rest, *OPTIONS)
    assert refused.code == 2
    assert "is not signed" in refused.err
    assert "absent.png" not in refused.err
    half = in_process(command, str(bundle_folder), *rest, *OPTIONS[:2])
    assert half.code == 2
    assert "go together" in half.err
    assert in_process("sign", str(bundle_folder)).code == 0
    assert "is signed by someone@example.org" in in_process(command, str(bundle_folder), *rest, *OPTIONS).err
    assert "not checked" in in_process(command, str(bundle_folder), *rest).err


def test_sigstore_itself_refuses_what_is_no_signature_of_it(bundle_folder: Path) -> None:
    for text in ("{}", "no JSON", json.dumps({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"})):
        (bundle_folder / SIGNATURE).write_text(text)
        with pytest.raises(BundleError, match="not in sigstore's format"):
            vc.check_signature(bundle_folder, **WHO)


def test_without_identity_network_or_sigstore_one_sentence_says_so(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sigstore import models, oidc

    def offline(**given: Any) -> Any:
        from sigstore.errors import TUFError

        raise TUFError("Failed to refresh TUF metadata")

    online = models.ClientTrustConfig.production(offline=True)
    monkeypatch.setattr(models.ClientTrustConfig, "production", lambda **given: online)
    monkeypatch.setattr(oidc, "detect_credential", lambda: None)
    with pytest.raises(EnvironmentLacksError, match=r"no identity to sign with.*id-token: write"):
        vc.sign(bundle_folder)
    monkeypatch.setattr(models.ClientTrustConfig, "production", offline)
    with pytest.raises(EnvironmentLacksError, match=r"TUFError.*network.*Nothing was written"):
        vc.sign(bundle_folder)
    monkeypatch.setitem(sys.modules, "sigstore.errors", None)
    with pytest.raises(EnvironmentLacksError, match=r"pip install 'vitcompress\[sign\]'"):
        vc.sign(bundle_folder)
    assert not (bundle_folder / SIGNATURE).exists()
