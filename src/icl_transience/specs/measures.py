"""Measures of circuits by name, each with what it is; circuits/measures.py computes them.

a[t, s]: attention of token t to token s, after the softmax. Tokens are counted from 0: exemplars at even places, labels
at odd ones, the query last. All are means over sequences, those left out in which a measure has no meaning.
"""

# Of each head.
HEAD_MEASURES = {
    "induction": "a[query, label tokens that are right], their mean, minus the mean over the other label tokens",
    "previous_token": "mean over label tokens t of a[t, t-1]",
    "previous_token_corrected": "mean over label tokens t of p - (1 - p)/t, p = a[t, t-1]: 0 where attention is even",
    "self": "mean over label tokens t of a[t, t]",
    "query_items": "a[query, exemplar tokens of the query's class], summed",
    "query_labels": "a[query, label tokens of the query's class], summed",
    "context_labels": "a[query, all label tokens], summed",
}
# Of the whole model.
MODEL_MEASURES = {"argmax_in_context": "share of sequences whose largest logit is that of a label in the context"}
# Of a head h and a head k of a later layer, W_O what h writes, W_Q, W_K, W_V what k reads; Frobenius norms.
COMPOSITIONS = {f"{part}_composition": f"|W_O W_{part.upper()}| / (|W_O| |W_{part.upper()}|)" for part in "qkv"}
# Of each head, each MLP, the embedding of the query, its position, and the biases: what is added to the logit of the
# right label, minus the mean over the context's other label tokens, through the final norm with its scale as it is.
ATTRIBUTION = "attribution"
