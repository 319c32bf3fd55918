#!/bin/sh
# Says the numbers from 1 to its first argument, ten milliseconds apart. Other arguments only mark the process.
n=0
while [ "$n" -lt "$1" ]; do
  n=$((n + 1))
  printf '{"event":"agent","stream":"assistant","data":{"delta":"%d "}}\n' "$n"
  sleep 0.01
done
