# Leaves a daemon, as the textbooks have it, which sleeps (first argument: seconds); "alone": ends then,
# else sleeps, too.
import os, sys

if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.chdir('/')
    null = os.open('/dev/null', os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.execlp('sleep', 'sleep', sys.argv[1])
os.wait()
if 'alone' not in sys.argv:
    os.execlp('sleep', 'sleep', sys.argv[1])
