"""The recipe that made the embedded model's weights: `python -m fifo_diffusion.training --folder DIR`."""
