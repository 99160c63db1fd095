"""The directory a user deploys: written whole or not at all, and checked in full before anything in it is used.

model[.PRECISION].onnx             the network in each precision (fp32 has no infix)
model[.PRECISION].TARGET.engine    what another target built of it, such as tensorrt or tensorrt-rtx
preprocess.json                    how an image becomes the input
labels.txt                         one label a line, in the order of the logits
infer.py                           classifies images with numpy, Pillow and ONNX Runtime alone
triton/                            a model repository for Triton, if asked for (exporters/targets/triton.py)
timm/                              the network as timm loads it, if it was handed in
torch/student.pt2                  the network as torch loads it, where timm has none that answers alike
judge/                             what measuring it on another machine needs, if asked for (judge.py)
manifest.json                      schema, versions, models, which is recommended, size and SHA-256 of every other file;
                                   of judge/ those of its own manifest.json, so that judge/ can be left out or deleted
README.md                          the model card
sbom.cdx.json                      what is in it and what made it: packages, licences, figures (CycloneDX; sbom.py)
provenance.json                    the run that it comes from (in-toto, SLSA; origin.py)
manifest.json.sigstore.json        who signed the manifest, where somebody did (signature.py)
"""

from vitcompress.exporters.bundle.card import CardFacts as CardFacts
from vitcompress.exporters.bundle.judge import JudgeFiles as JudgeFiles
from vitcompress.exporters.bundle.judge import OpenJudge as OpenJudge
from vitcompress.exporters.bundle.judge import open_judge as open_judge
from vitcompress.exporters.bundle.layout import Bundle as Bundle
from vitcompress.exporters.bundle.layout import ModelFile as ModelFile
from vitcompress.exporters.bundle.origin import Origin as Origin
from vitcompress.exporters.bundle.read import open_bundle as open_bundle
from vitcompress.exporters.bundle.write import write_bundle as write_bundle
from vitcompress.exporters.bundled import BundledModel as BundledModel
