"""The teacher cache: the frozen teacher runs once on each distinct view, and the student reads its answers from disk.

A view is (image, view number); its row is ``view * images + image``. Row by row the teacher's logits and the taps in
use are written in half precision and read back memory-mapped while the student trains:

FOLDER/KEY/key.json               everything the values depend on; KEY is the start of its fingerprint
FOLDER/KEY/logits/000000.safetensors ...
FOLDER/KEY/tap-23/000000.safetensors ...    one folder a quantity: runs that use other taps share the rest
FOLDER/KEY/tap-23/manifest.json   of every complete chunk: SHA-256, bytes, mean rank, measured error

``config`` settings, ``lowrank`` algebra, ``chunks`` one file, ``store`` the folder, ``upkeep`` its lock, checks and
room, ``fill`` computing what is missing, ``report`` what it took, ``views`` the dataset that training reads.
"""
