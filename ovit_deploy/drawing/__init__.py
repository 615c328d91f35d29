"""Pictures as SVG text, readable on light and on dark ground; knows nothing of what they show.

svg.py       the file itself: style, words, lines
axes.py      values to pixels, round ticks, the frame of a plot
marks.py     what a series looks like: colour, form, whiskers
panels.py    curves over one axis of epochs, one above the other
heatmap.py   rows by columns, darker where there is more
"""
