"""The contestants, a file each: what is installed for it, its messages, and the command that starts its consumer.

Nothing here imports a peer. What a peer itself runs is in ``apps``, started by the Python (or node) that it was
installed for, in ``.cache/bench``; the project's own environment gets none of it.
"""
