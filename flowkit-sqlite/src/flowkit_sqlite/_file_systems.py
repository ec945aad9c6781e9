"""Detection of network file systems, on which processes cannot share a file safely."""

import logging
import re
import shutil
import subprocess
from pathlib import Path, PurePath, PurePosixPath

logger = logging.getLogger(__name__)

ON_A_SHARE = (
    "Move the file to a local disk: processes of several machines cannot share it, and locks on a"
    " network file system are not reliable."
)
MOUNTS = Path("/proc/self/mountinfo")
"""The mounts of this process, on Linux."""
DF_SEC = 5.0
SHARE = re.compile(r"//|[^/]+:/?")
"""Device of a network share: ``//host/share`` or ``host:/folder``."""
NETWORK_TYPES = frozenset(
    "9p afs beegfs ceph cifs coda davfs glusterfs gpfs lustre ncpfs nfs nfs4 orangefs pvfs2 smb3"
    " smbfs vboxsf vmhgfs".split()
)
NETWORK_PROGRAMS = frozenset(
    "ceph ceph-fuse cifs curlftpfs davfs davfs2 gcsfuse glusterfs goofys grpcfuse mountpoint-s3"
    " osxfs rclone s3fs smbnetfs sshfs vmhgfs-fuse".split()
)
"""Programs that serve a network file system: its type is ``fuse`` with the name of the program."""
ESCAPED = re.compile(r"\\([0-7]{3})")


def warn_of_share(path: Path) -> None:
    """Log a warning if a file is on a network share."""
    if (share := network_share(path)) is not None:
        logger.warning(
            "%s is on the network share %s: changes may be lost, and the file may be damaged. %s",
            path,
            share,
            ON_A_SHARE,
            extra={"action": "network_share"},
        )


def network_share(path: Path) -> str | None:
    """Return the network share on which a file is, None if it is local or cannot be found out."""
    path = path.resolve()
    if path.drive:
        return path.drive if path.drive.startswith("\\\\") else None
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        device = _device(path)
        return device if device is not None and SHARE.match(device) else None
    return mounted_share(path, mounts)


def mounted_share(path: PurePath, mounts: str) -> str | None:
    """Return the device and type of the network file system on which a path is, or None.

    ``mounts`` is the text of ``/proc/self/mountinfo``, where a later mount hides an earlier one.
    """
    place, found = PurePosixPath(), None
    for line in mounts.splitlines():
        mount, _, system = line.partition(" - ")
        point = PurePosixPath(_unescaped(mount.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= len(place.parts):
            kind, device, *_ = system.split(" ")
            place, found = point, (kind, _unescaped(device))
    if found is None:
        return None
    kind, device = found
    family, _, program = kind.partition(".")
    is_share = family in NETWORK_TYPES or program in NETWORK_PROGRAMS or SHARE.match(device)
    return f"{device} ({kind})" if is_share else None


def _unescaped(text: str) -> str:
    return ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _device(path: Path) -> str | None:
    """Return the device of a file as ``df`` names it, None if that fails."""
    command = shutil.which("df")
    if command is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603
            [command, "-P", str(path)],
            capture_output=True,
            text=True,
            timeout=DF_SEC,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    *_, line = answer.stdout.splitlines() or [""]
    return line.split(" ", 1)[0]
