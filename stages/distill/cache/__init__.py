"""The teacher cache: the frozen teacher runs once on each distinct view, and the student reads its answers from disk.

A view is (image, view number); its row is ``view * images + image``. Row by row the teacher's logits and the taps in
use are written in half precision and read back memory-mapped while the student trains:

FOLDER/KEY/key.json                     everything the values depend on; KEY is the start of its fingerprint
FOLDER/KEY/logits/000000.safetensors ...
FOLDER/KEY/tap-23/000000.safetensors ...    one folder a quantity: runs that use other taps share the rest
FOLDER/KEY/tap-23/000000.json ...       of each complete file: SHA-256, bytes, measured error

``config`` settings, ``chunks`` one file, ``store`` the folder and the dataset that training reads, ``upkeep`` its
lock, checks and room, ``fill`` computing what is missing.
"""
