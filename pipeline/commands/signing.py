"""`compress sign`; and ``signed_by``, which gives a command the options to check a bundle's signature first."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

import vitcompress as vc
from vitcompress.core.errors import EXIT_OK, UsageError
from vitcompress.pipeline.commands.output import json_option, put
from vitcompress.pipeline.options import FOLDER


@click.command()
@click.argument("bundle", type=FOLDER)
@json_option
def sign(bundle: Path, as_json: bool) -> int:
    """Sign a BUNDLE's manifest by sigstore, as this CI job or as who signs in by the browser; needs a network."""
    from vitcompress.exporters.bundle.layout import SIGNATURE

    found = vc.sign(bundle)
    if as_json:
        return put("sign", found)
    click.echo(f"signed   {bundle / SIGNATURE}")
    click.echo(f"check    --certificate-identity {found.signer} --certificate-oidc-issuer {found.issuer}")
    return EXIT_OK


def signed_by(argument: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return what gives a command, whose ``argument`` is a bundle, a run or None, the options of its signature.

    Before the command, stderr says who signed the bundle, or that its signature is not looked at.
    """

    def given_to(command: Callable[..., int]) -> Callable[..., int]:
        @click.option(
            "--certificate-identity", metavar="WHO", help="Refuse a bundle that WHO (mail, URL) did not sign."
        )
        @click.option("--certificate-oidc-issuer", metavar="URL", help="OIDC provider that knows WHO.")
        @wraps(command)
        def checked(certificate_identity: str | None, certificate_oidc_issuer: str | None, **given: Any) -> int:
            _check(given[argument], certificate_identity, certificate_oidc_issuer)
            return command(**given)

        return checked

    return given_to


def _check(folder: Path | None, identity: str | None, issuer: str | None) -> None:
    from vitcompress.exporters.bundle.layout import SIGNATURE

    if bool(identity) != bool(issuer) or (identity and folder is None):
        raise UsageError("--certificate-identity and --certificate-oidc-issuer go together, with a bundle; give all.")
    bundle = folder / "bundle" if folder and (folder / "state.json").is_file() else folder
    if bundle and identity and issuer:
        vc.check_signature(bundle, identity=identity, issuer=issuer)
        click.echo(f"signature: {bundle} is signed by {identity} ({issuer})", err=True)
    elif bundle and (bundle / SIGNATURE).is_file():
        click.echo(f"signature: of {bundle} not checked; --certificate-identity says whose it has to be", err=True)
