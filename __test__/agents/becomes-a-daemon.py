# Starts a command as a daemon, as the textbooks have it, and ends.
import os, sys

if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.chdir('/')
    null = os.open('/dev/null', os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.execvp(sys.argv[1], sys.argv[1:])
