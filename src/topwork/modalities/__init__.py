"""What an item is: its file, its pixels, the facts that tell it from others.

image.py         decode, describe, thumbnail; SUFFIXES
image_graph.py   the same geometry and normalisation as ONNX graphs, for extraction and for the artefact
text.py          normalise, words, WordPiece
"""
