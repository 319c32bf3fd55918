#!/usr/bin/env python3
# Mounts a file system at its first argument that never answers, and becomes the rest of its arguments.
# It lasts as long as that lives, which has its descriptor.
import ctypes
import os
import sys

folder, *command = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
fuse = os.open('/dev/fuse', os.O_RDWR)
options = f'fd={fuse},rootmode=40755,user_id=0,group_id=0'.encode()
if libc.mount(b'dead', folder.encode(), b'fuse', 0, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
# Not to what that starts: the file system is dead when nobody has it any more.
holder = os.fork()
if holder == 0:
    parent = os.getppid()
    import time
    while os.getppid() == parent:
        time.sleep(0.05)
    os._exit(0)
os.close(fuse)
os.execvp(command[0], command)
