#!/bin/sh
# Writes all of $1/stdout, then all of $1/stderr, and ends as $1/exit says: a code, or SIG and a
# signal's number. A shell script, because hundreds of these are started.
cat "$1/stdout"
cat "$1/stderr" >&2
read -r how <"$1/exit"
case $how in
  SIG*) kill -s "${how#SIG}" $$ ;;
  *) exit "$how" ;;
esac
