"""The teacher cache: the frozen teacher runs once on each distinct view, and the student reads its answers from disk.

A view is (image, view number); its row is ``view * images + image``. Row by row the teacher's logits and the taps in
use are written in half precision and read back memory-mapped while the student trains:

RUN/cache/KEY/key.json                     everything the values depend on; KEY is the start of its fingerprint
RUN/cache/KEY/logits/000000.safetensors ...
RUN/cache/KEY/tap-23/000000.safetensors ...    one folder a quantity: trainings that use other taps share the rest
RUN/cache/KEY/tap-23/000000.json ...       of each complete file: SHA-256, bytes

``chunks`` one file, ``store`` the folder and the dataset that training reads, ``fill`` computing what is missing.
"""
