"""Why a network answers as it does: heat maps over a picture, a box fitted to them, and how far to trust both.

`explanation.explain` makes one explanation, `evaluation.evaluate` scores methods over labelled pictures;
`roadlens explain` and `roadlens explain-eval` call them.
"""
