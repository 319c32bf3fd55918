# Goes into the group of its parent, says so, and waits to be stopped; "stubborn": ignores SIGTERM.
$SIG{TERM} = 'IGNORE' if ($ARGV[0] // '') eq 'stubborn';
setpgrp(0, getpgrp(getppid())) or die "setpgrp: $!";
$| = 1;
print qq({"event":"agent","stream":"assistant","data":{"delta":"left;"}}\n);
sleep 1000 while 1;
