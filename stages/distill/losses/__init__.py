"""The distillation losses (docs/distillation.md), one a file.

A file of ``features`` compares two taps, a file of ``logits`` two answers; its name is the value in the config
(``distill.features.0.kind``, ``distill.logits``), its function ``loss`` is called. To add one, add such a file and its
test. Another package adds one by an entry point:

    [project.entry-points."vitcompress.losses"]
    "features.cosine" = "my_package.losses:cosine"

``registry`` finds them, ``alignment`` brings taps to one shape, ``labels`` is the loss that needs no teacher, ``terms``
sums all of them.

Shape suffixes: B batch, K classes, C channels, H W patch grid. Sources: [SKD] SpectralKD, arXiv 2412.19055; [EM]
From Low-Rank Features to Encoding Mismatch, arXiv 2511.15572; [DD] Distillation Dynamics, arXiv 2511.06848.
"""
