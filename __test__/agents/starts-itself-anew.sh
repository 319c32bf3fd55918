#!/bin/sh
# Keeps a child that does the same, as deep as the first argument says, and starts it anew whenever it
# has ended; the last one sleeps (second argument: seconds). All of them ignore SIGTERM.
trap "" TERM
while [ "$1" -gt 0 ]; do setsid sh "$0" $(($1 - 1)) "$2"; done
exec sleep "$2"
