"""The captioned world: endless scrolling scenes whose every attribute is known.

The embedded model is trained on it, and because each clip's subject, colour, scene and motion are
known exactly, what a model makes of a prompt can be scored (`fifo_diffusion.evaluate`).
"""
