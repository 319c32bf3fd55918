# Goes into the group of its parent, prints a word, and sleeps; "goes-and-ignores": ignores every polite
# signal. The other argument only marks the process.
use strict;
use warnings;

if ($ARGV[0] eq 'goes-and-ignores') { $SIG{$_} = 'IGNORE' for qw(TERM INT HUP) }
setpgrp(0, getpgrp(getppid())) or die "setpgrp: $!";
$| = 1;
print qq({"event":"agent","stream":"assistant","data":{"delta":"word"}}\n);
sleep 1000 while 1;
