"""Measuring what models and the method make of a prompt: `python -m fifo_diffusion.evaluate`."""
