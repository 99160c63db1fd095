"""What every key of ``analysis.json`` means: one sentence, the unit, and the paper it comes from."""

from __future__ import annotations

EM = "From Low-Rank Features to Encoding Mismatch, arXiv 2511.15572"
SKD = "SpectralKD, arXiv 2412.19055"
DD = "Distillation Dynamics, arXiv 2511.06848"
OWN = "this program"


def defined(meaning: str, unit: str, source: str = OWN) -> dict[str, str]:
    """One quantity."""
    return {"meaning": meaning, "unit": unit, "source": source}


NETWORK = {
    "label": defined("Which network of the run this is.", "text"),
    "arch": defined("The architecture's name in timm.", "text"),
    "epoch": defined("Epochs the checkpoint was trained; 0 before training, null if not followed.", "epochs"),
    "sample": defined("Which images were read.", "text"),
    "images": defined("Images that were read.", "images"),
    "seconds": defined("Time of the forward passes, and of measuring apart from them.", "s"),
    "taps": defined("What is known of each tap (the patch tokens after a block or stage), in order of depth.", "list"),
}
"""Keys of a network."""

SHAPE = {
    "layer": defined("Index of the block or stage, from 0.", "index"),
    "name": defined("The tap in words.", "text"),
    "width": defined("D, the channels of a token.", "channels"),
    "tokens": defined("N, the patch tokens of an image.", "tokens"),
    "kept_images": defined("Images that pca_rank and entropy are made of.", "images"),
    "zero_tokens": defined("Tokens without energy, left out of the spectral means.", "tokens"),
    "low": defined("Least activation over all images.", "activation"),
    "high": defined("Greatest activation over all images.", "activation"),
}

DIRECTIONS = {
    "rank": defined(
        "Sample-wise SVD: the fewest leading singular directions of an image's own token matrix that hold 80, 90, "
        "95 or 99 % of its energy; over images: mean, median, least, greatest, and p99, the least count that at least "
        "99 % of them do not exceed.",
        "directions",
        EM,
    ),
    "rank_curve": defined(
        "Cumulative share of an image's energy in its own leading 1, 2, ... directions, mean over images.",
        "share of energy",
        EM,
    ),
    "pca_rank": defined(
        "The fewest leading directions of one uncentred basis shared by all images that hold 80, 90, 95 or 99 % of an "
        "image's energy; over images as rank.",
        "directions",
        EM,
    ),
    "pca": defined(
        "The fewest leading directions of the shared basis that hold the share of the whole sample's energy (d), also "
        "as a fraction of the width (of_width).",
        "directions",
        EM,
    ),
    "pca_curve": defined(
        "Cumulative share of the whole sample's energy in the leading 1, 2, ... directions of the shared basis.",
        "share of energy",
        EM,
    ),
}

WAYS_OF = {
    "viewed_images": defined("Images that rank, pca_rank and intensity of the other ways are made of.", "images"),
    "ways": defined(
        "The same tap in four ways: raw, as it is; normed, after the network's own final norm (absent where it has "
        "none of this width); centred, less the mean over all tokens of all images; standardised, that over each "
        "channel's standard deviation. Of each rank, pca_rank, pca (d) and intensity (mean), of the other "
        "ways over viewed_images. Where the ways differ much, energy follows a few channels.",
        "as of rank, pca_rank, pca and intensity",
    ),
    "channels": defined(
        "The two channels of most energy, raw (strongest), and the share of the whole sample's energy in the first "
        "(top1) and in both (top2): massive activations.",
        "index; share of energy",
    ),
}

SPECTRAL = {
    "sep_unfolded": defined(
        "Spectral energy pattern: first component (from 1) of the whole FFT over channels, frequencies 0 to D-1, at "
        "which the mean cumulative energy reaches the share; its 50 % is near D/2 for any real features.",
        "components; fraction of the D components",
        EM,
    ),
    "sep_folded": defined(
        "The same over the D // 2 + 1 frequencies of the real FFT, both halves together: it tells networks apart.",
        "frequencies; fraction of the D // 2 + 1 frequencies",
    ),
    "sep_sorted": defined(
        "The same with each token's D energies sorted from large to small: the bandwidth a token needs at best.",
        "components; fraction of the D components",
    ),
    "sep_folded_curve": defined(
        "Cumulative share of energy over the frequencies, mean over tokens.", "share of energy"
    ),
    "sep_sorted_curve": defined(
        "Cumulative share of each token's sorted spectral energies, mean over tokens.", "share of energy"
    ),
    "participation": defined(
        "Participation ratio (sum e)^2 / sum e^2 of a token's D spectral energies, mean over tokens and images: how "
        "many components carry a token.",
        "components",
    ),
    "permutation": defined(
        "Least and greatest area under the folded curve, and frequencies to 90 % (d90), over random orders of the "
        "channels, beside the channels' own order on the same tokens.",
        "share of energy; frequencies",
    ),
    "order_effect": defined(
        "Area under the folded curve in the channels' own order less its mean over random orders, paired within each "
        "image; mean over images with a bootstrap interval, which tells how much it depends on the images, not on the "
        "orders drawn: the order of channels carries structure only where permutation's own area lies outside its "
        "least and greatest, too.",
        "share of energy",
    ),
    "intensity": defined(
        "Spectral intensity: |FFT over channels| / D, mean over frequencies, tokens and images.", "activation", SKD
    ),
    "spectrum": defined("|FFT over channels| / D at each frequency, mean over tokens and images.", "activation", SKD),
}

DYNAMICS = {
    "entropy": defined(
        "Shannon entropy of a token's channels in 100 bins from the least low to the greatest high of all taps, mean "
        "over tokens and images.",
        "bits",
        DD,
    ),
    "magnitude": defined("Mean absolute activation.", "activation", DD),
}

DOCUMENT = {
    "curve_points": defined("Whether curves are whole; at gives positions from 0, value the curve there.", "text"),
    "confidence": defined(
        "Coverage of every interval: percentile bootstrap of the mean over images, seeded; images without a value are "
        "left out and counted.",
        "probability",
    ),
    "approach": defined(
        "Distance of the followed student's curve over depth from the teacher's, before, along and after training: "
        "mean absolute difference over the student's layers, with 95 % bootstrap intervals over images.",
        "the quantity's own",
    ),
    "files": defined("Tables and figures written with this document.", "paths relative to it"),
    "advice": defined("What the numbers suggest, or null where none was asked for.", "text and numbers"),
}

DEFINITIONS = DOCUMENT | NETWORK | SHAPE | DIRECTIONS | WAYS_OF | SPECTRAL | DYNAMICS
"""By key of ``analysis.json``."""
