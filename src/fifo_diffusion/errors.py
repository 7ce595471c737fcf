"""What can go wrong, as one tree.

    FifoError                          every error this package raises on purpose
    ├── BadInput      (ValueError)     refused before any work was done
    │   └── DeviceError                no such device on this machine
    ├── OutputError   (OSError)        a file cannot be written, a folder or a codec is missing
    ├── ModelError                     weights are missing or broken; names the file and the key
    ├── RankLost                       another process of torchrun ended, or cannot be heard any more
    ├── OutOfMemory   (MemoryError)    a device, or the machine, has too little memory
    └── NotFinite     (ArithmeticError)  a network answered NaN or infinity

The message is one sentence: what was given, what is allowed, how to mend it.  The command line prints that
sentence and leaves with exit code 2.
"""


def in_short(error: BaseException) -> str:
    """An error that is not ours, in one line: its kind, and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip() or 'no more is known'}".splitlines()[0]


class FifoError(Exception):
    """Any error this package raises on purpose."""


class BadInput(FifoError, ValueError):
    """A value that is not allowed; nothing was done with it."""


class DeviceError(BadInput):
    """A device this machine does not have, or this build of torch cannot use."""


class OutputError(FifoError, OSError):
    """A file that cannot be written: a missing folder, no permission, no codec, a full disk."""


class ModelError(FifoError):
    """Weights that are missing or do not fit the network."""


class RankLost(FifoError):
    """Another process of torchrun that ended or cannot be heard any more; the frames made before that are good."""


class OutOfMemory(FifoError, MemoryError):
    """Too little memory; the frames made before that are good."""


class NotFinite(FifoError, ArithmeticError):
    """A network that answered NaN or infinity; the frames made before it are good."""
