"""Mathematics that several rooms share: heads as numbers, models as ONNX graphs, graphs as running sessions.

heads.py                logits(head, x), probabilities(head, x)                        numpy
log_loss.py             losses, the temperature that minimises them                    numpy
principal.py            principal axes of a feature matrix, found once                 numpy
softmax_regression.py   many penalised softmax regressions on the same items at once   numpy
onnx_graph.py           chain(*models) -> ModelProto, head(Head) -> ModelProto         onnx
session.py              session(model, threads) -> onnxruntime.InferenceSession        onnxruntime only
"""
