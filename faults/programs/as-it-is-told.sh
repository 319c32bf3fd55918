#!/bin/sh
# An agent with bad manners, named by $1. $2 only marks the process; what it leaves sleeps for $3 seconds.
say() { echo "{\"event\":\"agent\",\"stream\":\"assistant\",\"data\":{\"delta\":\"$1\"}}"; }
case $1 in
  is-killed) say word; kill -KILL $$ ;;
  crashes) say word; kill -SEGV $$ ;;
  stops) say word; kill -STOP $$; say never ;;
  closes-stdout) say word; exec 1>&- 2>&-; while :; do sleep 1000; done ;;
  closes-stdout-and-ends) say word; exec 1>&- 2>&-; exit 3 ;;
  leaves-a-child) say word; sleep "$3" & exit 0 ;;
  leaves-a-daemon) say word; setsid sleep "$3" & exit 0 ;;
  waits) say word; while :; do sleep 1000; done ;;
  is-stubborn) trap '' TERM INT HUP; say word; while :; do sleep 1000; done ;;
  ends) say word ;;
  fails) say word; echo 'Error: it went wrong' >&2; exit 7 ;;
  is-silent) ;;
esac
