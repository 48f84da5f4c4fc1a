"""The rules by which others read what is exported, written down once more: one file a format.

Each has `loaded(path, model)`, which gives every query head what it gets there: ("full",),
("streaming", sink, window), the window counting the query's own key, ("lines", columns, diagonals),
or for formats of one length a mask over its tokens.
"""
