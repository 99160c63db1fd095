"""What a network's features look like: one streaming pass over images, then numbers, tables, figures and advice.

The modules, in the order in which numbers pass through them:

- ``sample``: which images; ``network``, ``tap``, ``measures``: every layer's tokens measured as they come.
- ``results``: what is then known, as arrays; all below reads nothing else.
- ``document``: the numbers that a person or a program reads, as JSON and CSV; ``figures``: drawn from the JSON.
- ``statistics``: bootstrap draws of images; ``rules``, ``drawn``, ``advice``: how to train a student; ``approach``:
  whether it came closer to its teacher.
- ``write``: everything as files of one folder, and the arrays themselves.
"""
