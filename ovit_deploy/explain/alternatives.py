"""What else could make the model faster on this machine: forms worth a prediction."""

from dataclasses import replace

from ovit_deploy.engines import ENGINES, inventory
from ovit_deploy.engines.environments import cpu_flags
from ovit_deploy.engines.selection import Selection
from ovit_deploy.explain.forms import Form

HIGHER = 0.9
SKIP_ZEROS = ("deepsparse", "ovit")
BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def alternatives(asked: Form) -> list[Form]:
    """Other precisions, patterns, sparsities and widths on the same engine, then the other engines that are here."""
    own = [
        replace(asked, precision="int8" if asked.precision == "fp32" else "fp32"),
        replace(asked, pattern="unstructured" if asked.pattern == "block4" else "block4"),
        replace(asked, pattern="2:4", sparsity=0.5),
        replace(asked, sparsity=max(asked.sparsity, HIGHER)),
        replace(asked.dense, part="half MLP"),
    ]
    return [form for form in dict.fromkeys(own) if form != asked] + _elsewhere(asked)


def _elsewhere(asked: Form) -> list[Form]:
    """Other engines: dense in both precisions, and with zeros where the engine can skip them."""
    here = Selection.parse(asked.engine).engine
    found = []
    for name, traits in ENGINES.items():
        status = inventory.status(name)
        if name == here or traits.reads != "onnx" or status.refusal or not status.present:
            continue
        found += [Form(name), Form(name, precision="int8")]
        if name in SKIP_ZEROS:
            found += [replace(asked, engine=name, pattern="unstructured")]
        if name == "openvino" and BFLOAT16 & cpu_flags():
            found += [Form("openvino:precision=bf16")]
    return found
