"""The artefact: one folder that holds a whole model, opens without torch and answers as the trained one did.

compose(backbone, head, labels) -> bytes                    onnx.py      model.onnx: pixels or tokens -> probabilities
tensors(trunk, head) -> bytes                               weights.py   model.safetensors
write(folder, onnx=..., weights=..., ...) -> manifest       bundle.py    both files, then model.json
render(manifest, metrics, ...) -> str                       card.py      README.md
prove(folder, items, expected, ...) -> Proof                proof.py     a new process gives the same answers
load(folder) -> Model                                       model.py     predict, stream; pixels.py, texts.py
"""
