#!/bin/sh
# Says the numbers up to $1, a delta each, and ends. Other arguments only mark the process.
n=0
while [ "$n" -lt "$1" ]; do
  n=$((n + 1))
  echo "{\"event\":\"agent\",\"stream\":\"assistant\",\"data\":{\"delta\":\"$n \"}}"
done
