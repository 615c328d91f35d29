"""How fast is the model, on which engine, and compared with what.

    suite.py           what a benchmark is, as YAML: engines, models, batch sizes, threads, how long
    subject.py         one model made ready: files of one batch size, its dense twin, its images
    dense_twin.py      the same graph with its zeros filled: what the zeros bought, on the same engine
    random_weights.py  a timm model with random weights and random zeros: time needs no training
    settings.py        how to measure, and who is told of the progress
    contestant.py      one variant on one engine: its processes, and what is known of it
    scenario.py        how runs follow each other: single_stream, offline, server
    latency.py         every engine with every variant in processes of its own, timed in alternation
    measure.py         the alternation itself, on plain callables
    agreement.py       whether an engine computes the model at all: its logits against ONNX Runtime's
    statistics.py      medians and percentiles; McNemar's test
    verdict.py         a speed-up with its interval: faster, slower, equivalent or inconclusive
    evidence.py        layers with their times and kernels, and Amdahl's split
    noise.py           is the machine quiet enough
    calibration.py     a file against itself, and against itself slowed by a known amount
    own_tool.py        our medians against those of each engine's own tool
    against.py         a result against an earlier one
    hardware.py        what it ran on
    rivals.py          the fastest dense engine, and DeepSparse, of the same turns
    labelled.py        the test images of an export; top1.py: what every engine tells of them
    picture.py         a result as a picture
    results.py         what comes out, as values and as a JSON file
    pruner.py          the other benchmark: the pruning kernel against its plain form

One contestant is one variant of a model on one engine. All contestants of a model are alive at once and take
turns in blocks of runs, in an order drawn anew every round, so that a machine that slows down slows all of
them; then all end, and the next fresh processes begin.
"""
