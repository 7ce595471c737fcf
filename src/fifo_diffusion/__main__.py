"""`python -m fifo_diffusion` is the command `fifo`."""

from fifo_diffusion.cli import main

if __name__ == "__main__":
    main()
