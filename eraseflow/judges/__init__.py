"""Judges, one a module, found by its name; thresholds are applied later, by eraseflow/verdict.py.

load(device, concept): a function from pictures (n, 3, H, W) uint8 of any size to a DataFrame of raw scores, a row a
    picture; it works in batches.
LABELS: the columns that a concept may count, as "<head>/<label>"; there may be further columns.
The rest is optional. PROTOCOLS: name -> {"counts": labels, "threshold": 0..1}, rules of published papers.
FIRST_CHOICE = False: scores do not compete within a head, so that only a threshold makes a verdict.
NAME: network and version as a score's title says them.
NEEDS: which of `questions`, `references` and `source` the concept's judge block must give.
outside(concept): the local files that `load` reads for the concept; if left out, all those that NEEDS name.
summary(scores, concept): a paper's own numbers over the target pictures, un-attacked or attacked, each name saying
    judge and unit.
LABELS and these constants are read without importing the module (eraseflow/definitions.py): keep their values simple.
"""
