#!/bin/sh
# Counts the SIGTERMs that it is sent: a letter for each in a file (first argument), which is there when
# it listens. Goes on.
trap 'printf T >>"$1"' TERM
: >"$1"
while :; do sleep 1 & wait $!; done
