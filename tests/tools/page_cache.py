"""Share of a file that is in the page cache, and its removal from there; standard library only.

python -I -S page_cache.py FILE      # prints the share, 0 to 1
"""

import ctypes
import mmap
import os
import sys


def resident(path: str) -> float:
    """Return the share of the pages of *path* that are in the page cache, 0 to 1."""
    number = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(number).st_size
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
            ctypes.c_long,
        ]  # fmt: skip
        at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, number, 0)
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        try:
            if libc.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), pages):
                raise OSError(ctypes.get_errno(), "mincore failed")
        finally:
            libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
        return sum(page & 1 for page in pages) / len(pages)
    finally:
        os.close(number)


def drop(path: str) -> None:
    """Remove *path* from the page cache, after it has been written to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(number)


if __name__ == "__main__":
    print(resident(sys.argv[1]))
