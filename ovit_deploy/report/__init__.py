"""What runs left behind, on one page: as HTML, Markdown or JSON.                              ``ovit-deploy report``

    gather.py        the files of the runs as values, and which of them are missing
    contestants.py   rows of benchmarks with the accuracy that belongs to them
    commands.py      the commands that make a run again
    flatten.py       facts of any shape as rows of a table
    blocks.py        what a page consists of: text, tables, pictures, code
    sections.py      a section for everything there is to tell; accuracy.py, evidence.py the longer ones
    plots.py         the pictures
    html.py          blocks as one page that needs no other file (page.html.j2); markdown.py the same as Markdown

Reads files and nothing else: no model is loaded, nothing is measured.
"""
