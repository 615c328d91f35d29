"""ovit-deploy: prune vision transformers with oViT, export sparse ONNX, measure the speed-up on real engines."""
