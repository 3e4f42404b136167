"""What to do about an error of the operating system, by its number: not every one means that the disk is full."""

from __future__ import annotations

import errno
import os

OTHER_PLACE = "Give the user that runs the platform access to it, or set {setting} to a place that you own."
REMEDIES = {
    errno.EACCES: OTHER_PLACE,
    errno.EPERM: OTHER_PLACE,
    errno.ENOTDIR: OTHER_PLACE,
    errno.EISDIR: OTHER_PLACE,
    errno.EEXIST: OTHER_PLACE,
    errno.ENOENT: "Somebody removed it, or its disk is not mounted: check {setting} and run again.",
    errno.EROFS: "The file system is read-only: mount it for writing, or set {setting} to another place.",
    errno.ENAMETOOLONG: "Set {setting} to a shorter path.",
    errno.ENOSPC: "The disk is full: free some space and run again.",
    errno.EDQUOT: "The disk quota is used up: free some space and run again.",
    errno.EFBIG: "The file system does not hold files of that size: set {setting} to another place.",
    errno.EIO: "The disk or network drive failed: check it (the kernel's log may say more), and run again.",
    errno.ESTALE: "The network drive was lost: mount it again, and run again.",
    errno.ETIMEDOUT: "The network drive does not answer: check it, and run again.",
    errno.EMFILE: "Too many files are open: raise the limit of open files (ulimit -n), and run again.",
    errno.ENFILE: "Too many files are open on this machine: close some programs, and run again.",
}
TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE)
"""What may go away by itself."""


def remedy(number: int | None, setting: str) -> str:
    """What to do; `setting` is the environment variable that names the place."""
    return REMEDIES.get(number or 0, "Check the disk, and {setting}.").format(setting=setting)


def number_in(message: str) -> int | None:
    """The number of the error that a library's message quotes in the operating system's words; None if none."""
    return next((number for number in REMEDIES if os.strerror(number) in message), None)
