"""What an item is: its file, its pixels, the facts that tell it from others.

image.py         decode, describe, thumbnail; SUFFIXES
image_graph.py   the same geometry and normalisation as ONNX graphs, for extraction and for the artefact
text.py          numbers of a text: what readers give and graphs take
text_language.py notice(texts): scripts and languages
wordpiece.py     normalise, words, WordPiece: the reader of static embeddings
tokens.py        TokenReader: tokenizer.json, special tokens, windows: the reader of transformers
ngrams.py        NgramReader: TF-IDF of character and word n-grams, fitted without labels
rows.py          a row of feature columns, written, parsed, shown; Table: many of them, column by column
columns.py       ColumnsReader: rows filled and scaled, words as columns, fitted without labels
"""
