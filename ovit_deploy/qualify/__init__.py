"""Qualification: does a model go all the way, from its weights to the engines?

task.py      what is asked of a model, and the row that answers
images.py    made-up images, of classes that can be told apart
stages.py    build, prune, export, compare: each stage adds to the row, a failure is told in it
limits.py    what an engine is known not to run
child.py     a model in a process of its own, with a limit of time and memory
journal.py   every finished row, so that a run that was stopped goes on
table.py     rows as tables
"""
