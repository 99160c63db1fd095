"""The report's terms in plain words, for readers from outside the field."""

TERMS = {
    "teacher, student": "The large network that exists already, and the small one that was trained to answer like it.",
    "held-out images": "Images that no training has seen; every accuracy here is measured on them.",
    "top-1": "Share of images whose most probable class is the right one. Top-5: the right one is among five.",
    "drop": "The teacher's top-1 less the student's, on the same images, in points (90 % and 88 % are 2 points apart).",
    "95 % interval": "Made by a method that covers the true value in 95 of 100 repetitions; a limit inside it is "
    "neither kept nor broken for sure. For a drop it is paired: both networks saw the same images.",
    "p50, p90, p99": "Time that 50, 90 or 99 of 100 calls stay below; p50 is the median.",
    "batch": "Images that are handed over in one call.",
    "session": "One opening of all models: memory lies elsewhere in each, which moves times a little.",
    "speed-up": "The teacher's median time over the student's, measured in turn on the same machine.",
    "throughput": "Images a second when calls follow each other without a pause.",
    "MACs": "Multiply-accumulates for one image: arithmetic, whatever the machine.",
    "gate": "A limit set on one measured number. It passes when the whole interval is within the limit, fails when the "
    "whole interval is beyond it, is inconclusive when the limit lies inside the interval, and unmeasured where there "
    "is no number.",
    "agreement": "Share of images that an exported file answers as the same network does in torch.",
    "calibration error": "How far stated confidence and actual accuracy are apart on average (expected calibration "
    "error, 15 bins): 0 means that answers given with 80 % confidence are right 8 times of 10.",
    "flip": "An image that teacher and student answer differently: lost, won, or wrong in both ways.",
    "fp32, fp16, bf16, int8, fp8": "Number formats of the arithmetic, from 32 bits down to 8.",
    "ONNX, TensorRT": "A file format for networks that many programs run; NVIDIA's compiler for its own GPUs.",
    "projector, folded": "The layer that lifts the student to the teacher's width; folded: absorbed by algebra into "
    "what follows, with the same answers.",
    "raw, averaged weights": "As the last training step left them; averaged over many steps (EMA).",
}
