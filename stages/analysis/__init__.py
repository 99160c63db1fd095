"""What a network's features look like: one streaming pass over images, then numbers, tables, figures and advice.

Which way numbers go, by module:

- ``sample``, ``read``: which images; one network of a run over them.
- ``network``, ``tap``, ``measures``: every layer's tokens measured as they come.
- ``results``: what is then known, as arrays; all below reads nothing else.
- ``summary``, ``statistics``: percentiles, counts and bootstrap intervals over images.
- ``rules``, ``drawn``, ``advice``: how to train a student; ``approach``: whether it came closer to its teacher.
- ``write``: ``document`` (JSON, with ``definitions``), ``tables`` (CSV), ``figures``; ``store``: the arrays themselves.
"""
