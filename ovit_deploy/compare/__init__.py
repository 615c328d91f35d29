"""The stages that put methods, sparsities and layers side by side.

    study.py        methods x sparsities -> one cell each: accuracy, losses, time, memory    ``ovit-deploy compare``
    methods.py      the methods by name, with the settings of their papers
    cells.py        a cell, and the journal that a study appends to and continues from
    cost.py         seconds and peak memory of a block of code
    recover.py      the gradual twin: some epochs of training for every cell
    sensitivity.py  layers x sparsities -> loss, predicted and measured                      ``ovit-deploy sensitivity``
    report.py       results as JSON, and in which order tables tell them
    plot.py         accuracy over sparsity as SVG

Stands above finetune and bench: it trains and evaluates by the one and describes the machine by the other.
"""
