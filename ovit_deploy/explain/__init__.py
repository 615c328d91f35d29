"""How fast will it be? Predictions from measured pieces, before anything is trained; and pruning to a given time.

pieces.py        short models: a few copies of one block of the real one, exported, with zeros
session.py       pieces on engines, timed in turns; the cache of what was measured
forms.py         engine, precision, pattern, sparsity; the whole as a combination of pieces
prediction.py    dense and sparse, where the time goes, and what else helps
alternatives.py  which other forms are worth a prediction
"""
