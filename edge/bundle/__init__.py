"""A bundle: the folder that `edge-export` makes, its manifest, its files and their hashes."""

from edge.bundle.manifest import (
    MANIFEST,
    REFERENCE,
    TOKENIZER,
    VERIFICATION,
    Bundle,
    BundleError,
    EmbodimentSpec,
    EngineSpec,
    Manifest,
    PolicyShape,
    SlotScaling,
    TensorSpec,
    add_to_verification,
    load_bundle,
    parse_manifest,
    sha256,
)

__all__ = [
    "MANIFEST",
    "REFERENCE",
    "TOKENIZER",
    "VERIFICATION",
    "Bundle",
    "BundleError",
    "EmbodimentSpec",
    "EngineSpec",
    "Manifest",
    "PolicyShape",
    "SlotScaling",
    "TensorSpec",
    "add_to_verification",
    "load_bundle",
    "parse_manifest",
    "sha256",
]
