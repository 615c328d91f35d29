"""From a pruned model to a file that an engine runs fast, and the proof that both are the same model.

profile.py     what an engine wants: opset, batch, passes, tolerance (the files in ``export/``)
to_onnx.py     PyTorch -> ONNX graph in the form the profile describes
passes/        one rewrite of the graph a file
verify.py      the file against the model: logits, classes, zeros
card.py        model.json: what the file is
packed.py      the file in a fraction of its space, and back bit by bit
deployment.py  the folder, written whole or not at all
"""
